"""Base of the callbacks that measure, during training, how well features tell classes apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vclr_lightning.callbacks.batch_labels import Labels, find_labels
from vclr_lightning.callbacks.epoch_ends import EpochEnds
from vclr_lightning.callbacks.feature_callback import FeatureCallback, log_equal
from vclr_lightning.callbacks.feature_source import Features, Views
from vclr_lightning.callbacks.throughput import samples_in
from vclr_lightning.core.distributed import failing_together, gather_objects
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer, move_data_to_device
from vclr_lightning.core.random import random_state_kept

HeldOut = Callable[[Trainer], Iterable[Any]] | str | None


class OnlineProbe(FeatureCallback):
    """Predicts classes from frozen features, and logs how often it is right.

    ``probe/KIND/val_top1`` is of the batches of the host's validation loop; or, with ``held_out``,
    of batches that the callback puts through the network itself after some epochs, in evaluation
    mode. Of several views of a sample, the scores are averaged. With several layers, the layer's
    name comes before the measure's. Samples with a negative label are left out.

    Args:
        features, views, tokens: see
            :class:`~vclr_lightning.callbacks.feature_source.FeatureSource`.
        labels: key or attribute of the batch, or a function of it that returns the classes
            ``(B,)``; ``None``: ``label``, ``labels``, ``target``, ``targets`` or ``y``, or the last
            integers ``(B,)`` of a tuple.
        num_classes: number of classes; ``None`` for what module or data module say.
        held_out: function of the trainer that returns the batches of this rank, or the name of a
            split of which ``datamodule.frames_loader`` does; ``None`` for the validation loop.
        every_n_epochs: epochs between two evaluations of ``held_out``.
        forward: puts such a batch through the network: a function of module and batch; ``None``:
            ``module.encode`` of ``batch["frames"]`` ``(B, m, C, T, H, W)`` where there are both,
            else the module itself, of the batch's first tensor.
        name: in the logs instead of ``probe/KIND``, where there are several probes of a kind.

    Raises:
        UserError: an argument is out of range; or, in training, there are no labels, or no such
            submodule.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        *,
        features: Features | None = None,
        views: Views = "outside",
        tokens: bool = False,
        labels: Labels = None,
        num_classes: int | None = None,
        held_out: HeldOut = None,
        every_n_epochs: int = 1,
        forward: Callable[[LightningModule, Any], Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            features=features,
            views=views,
            tokens=tokens,
            name=name,
            usual=f"probe/{self.kind}",
        )
        self.labels = labels
        self.num_classes = num_classes
        self.held_out = held_out
        self.due = EpochEnds(every_n_epochs=every_n_epochs, of="probe")
        self.forward = forward or forward_batch
        self._checked = False
        self._loader: Iterable[Any] = ()
        self._hits: dict[str, list[Tensor]] = {}  # by layer, of each batch: right ones, and all

    def scores(self, name: str, features: Tensor) -> Tensor | None:
        """Return the scores ``(N, classes)`` of one layer's features, where there are any yet."""
        return None

    def prepare(self) -> None:
        """Get ready for an evaluation; every rank calls it."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.num_classes is None:
            self.num_classes = _classes_of(trainer, pl_module)
        if isinstance(self.held_out, str):
            data: Any = getattr(trainer, "datamodule", None)
            if not callable(getattr(data, "frames_loader", None)):
                raise UserError(
                    f"held_out={self.held_out} of a probe needs a data module with frames_loader; "
                    "give a function of the trainer that returns batches"
                )
            self._loader = data.frames_loader(self.held_out)

    def labels_of(self, batch: Any, samples: int) -> Tensor:
        """Return the classes of a batch of ``samples`` samples, ``(B,)``."""
        found = find_labels(batch, self.labels)
        if found is None:
            raise UserError(
                f"the probe {self.kind} finds no classes (B,) in a batch, a "
                f"{type(batch).__name__}; give their key, or a function of the batch (labels=)"
            )
        if len(found) != samples:
            raise UserError(
                f"the probe {self.kind} finds {len(found)} classes for {samples} samples in a "
                "batch; give their key, or a function of the batch (labels=)"
            )
        if self.num_classes is not None and not (found.is_cuda and self._checked):
            if (top := int(found.max())) >= self.num_classes:
                raise UserError(f"the label {top} is none of num_classes={self.num_classes}")
            self._checked = True  # asking a device waits for it
        return found.long()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validates(trainer):
            self._hits = {}
            self.prepare()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._validates(trainer) and not dataloader_idx:
            self.source.start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._validates(trainer) and not dataloader_idx:
            with trainer.precision_plugin.forward_context():
                features = self.source.take(pl_module, batch, samples=samples_in(batch))
            self.count(features, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validates(trainer):
            log_equal(pl_module, self.result())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.held_out is not None and self.due(trainer):
            log_equal(pl_module, self.evaluate(trainer, pl_module))

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Return the accuracies on ``held_out``; every rank has to call it."""
        self._hits = {}
        self.prepare()
        loader = self.held_out(trainer) if callable(self.held_out) else self._loader
        with failing_together(), random_state_kept(), trainer.precision_plugin.forward_context():
            for batch in loader:
                moved = move_data_to_device(batch, pl_module.device)
                if not (samples := samples_in(moved)):
                    continue
                run = self.source.run
                features = run(pl_module, moved, samples=samples, forward=self.forward)
                self.count(features, moved)
        return self.result()

    def _validates(self, trainer: Trainer) -> bool:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return self.held_out is None and fitting

    @torch.no_grad()
    def count(self, features: dict[str, Tensor], batch: Any) -> None:
        """Take up the features ``(B, V, F)`` of a held-out batch."""
        labels = self.labels_of(batch, len(next(iter(features.values()))))
        known = labels >= 0
        for name, rows in features.items():
            some = rows[known]
            scores = self.scores(name, some.nan_to_num(0.0, 0.0, 0.0).flatten(0, 1))
            if scores is None or not len(scores):
                continue
            right = scores.view(-1, rows.shape[1], scores.shape[1]).mean(dim=1).argmax(dim=1)
            finite = some.flatten(1).isfinite().all(dim=1)  # what is not counts as wrong
            hits = ((right == labels[known]) & finite).sum()
            self._hits.setdefault(name, []).append(torch.stack([hits, known.sum()]))

    def result(self) -> dict[str, float]:
        """Return what is logged of an evaluation; every rank calls it."""
        own = {name: torch.stack(hits).sum(dim=0).tolist() for name, hits in self._hits.items()}
        ranks, found = gather_objects(own), {}
        for name in self.source.names:
            hits, number = map(sum, zip(*(one.get(name, (0, 0)) for one in ranks), strict=True))
            if number:
                found[self.named(name, "val_top1")] = hits / number
        return found


def forward_batch(module: LightningModule, batch: Any) -> Any:
    """Put a batch through a network; see ``forward`` of :class:`OnlineProbe`."""
    encode = getattr(module, "encode", None)
    if isinstance(batch, Mapping) and "frames" in batch and callable(encode):
        return encode(batch["frames"].flatten(0, 1))
    return module(first_of(batch))


def first_of(batch: Any) -> Tensor:
    """Return the first tensor in a batch.

    Example:
        >>> first_of({"name": ["a"], "x": [torch.zeros(2), torch.ones(3)]})
        tensor([0., 0.])
    """
    waiting = [batch]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Tensor):
            return part
        parts = part.values() if isinstance(part, Mapping) else part
        waiting[:0] = parts if isinstance(part, Mapping | list | tuple) else []
    raise UserError(f"there is no tensor in a batch, a {type(batch).__name__}; give forward=")


def _classes_of(trainer: Trainer, pl_module: LightningModule) -> int | None:
    data: Any = getattr(trainer, "datamodule", None)
    listed = getattr(data, "train", None)  # a table of videos
    for owner in (pl_module, getattr(pl_module, "hparams", None), data, listed):
        if isinstance(number := getattr(owner, "num_classes", None), int) and number > 1:
            return number
    return None
