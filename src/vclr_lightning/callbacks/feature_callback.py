"""Base of the callbacks that look at the features of training steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vclr_lightning.callbacks.feature_source import Features, FeatureSource, Views
from vclr_lightning.callbacks.throughput import samples_in
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer


class FeatureCallback(CheckedCallback):
    """Hands the features of each training batch to :meth:`on_features`.

    They are those of the training step itself, as the named submodules returned them, in training
    mode; the host's gradients, modes and random numbers stay as they are.

    Args:
        features, views, tokens: see
            :class:`~vclr_lightning.callbacks.feature_source.FeatureSource`.
        name: what the logged values' names begin with; ``None``: ``usual``. Of several callbacks of
            a class, each needs another one.
        usual: the name by default.

    Raises:
        UserError: from the start, another callback of the class has the same name.
    """

    def __init__(
        self,
        *,
        features: Features | None = None,
        views: Views = "outside",
        tokens: bool = False,
        name: str | None = None,
        usual: str = "features",
    ) -> None:
        super().__init__()
        self.source = FeatureSource(features, views=views, tokens=tokens)
        self.name = name or usual
        self._key = (
            f"{type(self).__name__}({', '.join([*self.source.names, *filter(None, [name])])})"
        )
        self._reading = False

    @property
    def state_key(self) -> str:
        """Tells several callbacks of a class apart in a checkpoint."""
        return self._key

    def on_features(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        features: dict[str, Tensor],
        batch: Any,
    ) -> None:
        """Use the features ``(B, V, F)`` of a training batch, by name."""

    def reads(self, trainer: Trainer) -> bool:
        """Whether the features of the next training batch are wanted."""
        return True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        check_name(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.source.attach(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._reading = self.reads(trainer)
        if self._reading:
            # Not what the module's own hook encodes before the step.
            progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            before = progress.started
            self.source.start(lambda: progress.started > before)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        skipped = pl_module.automatic_optimization and not outputs  # by the module's step
        if not self._reading or skipped:
            return
        with trainer.precision_plugin.forward_context():
            features = self.source.take(pl_module, batch, samples=samples_in(batch))
        self.on_features(trainer, pl_module, features, batch)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.source.detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.source.detach()

    def named(self, layer: str, measure: str) -> str:
        """Return the name of a value in the logs; the layer is left out where it is the only one.

        Example:
            >>> FeatureCallback(features="net", name="probe/knn").named("net", "val_top1")
            'probe/knn/val_top1'
        """
        several = len(self.source.names) > 1
        return "/".join([self.name, *([layer] if several else []), measure])


def check_name(trainer: Trainer, callback: Any) -> None:
    """Refuse two callbacks of a class whose logged values have the same names.

    Args:
        trainer: with all callbacks.
        callback: with an attribute ``name``.

    Raises:
        UserError: there is another one of its name.
    """
    kind, name = type(callback), callback.name
    others: list[Any] = [one for one in trainer.callbacks if type(one) is kind]  # type: ignore[attr-defined]
    if any(one.name == name for one in others if one is not callback):
        raise UserError(
            f"two {kind.__name__} log their values under {name}; give one of them another name "
            "(name=)"
        )


def log_equal(pl_module: LightningModule, values: dict[str, Any], **options: Any) -> None:
    """Log values that are the same on all ranks, in full precision as far as Lightning keeps it."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            number = value.to(pl_module.device, torch.float32)
        else:  # made there: a copy would wait for the device
            number = torch.full((), value, dtype=torch.float32, device=pl_module.device)
        # Without sync_dist Lightning warns at the end of an epoch.
        sync = not options.get("on_step", False)
        pl_module.log(name, number, batch_size=1, sync_dist=sync, **options)
