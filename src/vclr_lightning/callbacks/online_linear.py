"""Classifiers of frozen features that are trained beside a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from vclr_lightning.callbacks.feature_callback import log_equal
from vclr_lightning.callbacks.online_probe import OnlineProbe
from vclr_lightning.core.distributed import average_in_place
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.core.random import random_state_kept, seed_of
from vclr_lightning.evaluation.probe_heads import AttentiveHead, LinearHead
from vclr_lightning.functional.precision import without_autocast

logger = logging.getLogger(__name__)


class OnlineLinearProbe(OnlineProbe):
    """Trains a linear classifier of each layer beside the network, by an optimizer of its own.

    It takes one step with every training batch, on the step's own features, from which no gradient
    flows back. ``probe/linear/loss`` and ``probe/linear/train_top1`` are of the batch before that
    step, ``probe/linear/val_top1`` of held-out samples. Gradients are averaged over the ranks;
    classifier and optimizer are part of checkpoints.

    Args:
        optimizer: takes the classifiers' parameters; ``None``: AdamW of learning rate 1e-3.
        seed: of the classifiers' initial weights.
        options: see :class:`~vclr_lightning.callbacks.online_probe.OnlineProbe`; the number of
            classes has to be known at the start.

    Attributes:
        heads: the classifiers, in the order of the layers; once the first batch has been seen.

    Raises:
        UserError: the number of classes is unknown; see also there.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> probe = OnlineLinearProbe(features="encoder", num_classes=10)
        >>> trainer = Trainer(callbacks=[probe], accelerator="cpu", logger=False)
    """

    kind: ClassVar[str] = "linear"

    def __init__(
        self,
        *,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.seed = seed
        self.heads = nn.ModuleList()
        self._make = optimizer or partial(AdamW, lr=1e-3, weight_decay=0.0)
        self._optimizer: Optimizer | None = None
        self._loaded: dict[str, Any] | None = None
        self._labelled = torch.zeros(())  # samples since the epoch began

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the classifier of one layer."""
        return LinearHead(num_features, num_classes)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.num_classes is None:
            raise UserError(
                f"neither {type(pl_module).__name__} nor its data say how many classes there are; "
                f"give the probe {self.kind} num_classes"
            )

    def on_features(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        features: dict[str, Tensor],
        batch: Any,
    ) -> None:
        rows = [x.flatten(1).isfinite().all(dim=1) for x in features.values()]
        labels = self.labels_of(batch, len(rows[0])).clamp_min(-1)
        # Later labels out of range, which on a device are not looked at, are left out.
        usable = torch.stack(rows).all(dim=0) & (labels < (self.num_classes or 0))
        labels = labels.where(usable, -1)
        features = {name: x.nan_to_num(0.0, 0.0, 0.0) for name, x in features.items()}
        optimizer = self._optimizer or self._build(features)
        losses, hits = [], {}
        with torch.enable_grad(), without_autocast(labels):
            for (name, views), head in zip(features.items(), self.heads, strict=True):
                target = labels.repeat_interleave(views.shape[1])
                scores = head(views.flatten(0, 1))
                loss = cross_entropy(scores, target, ignore_index=-1, reduction="sum")
                losses.append(loss / views.shape[1])
                right = (scores.argmax(dim=1) == target).sum() / views.shape[1]
                hits[name] = torch.stack([loss.detach() / views.shape[1], right])
            parameters = list(self.heads.parameters())
            gradients = torch.autograd.grad(torch.stack(losses).sum(), parameters)
        number = (labels >= 0).sum().float()
        self._labelled = self._labelled + number
        average_in_place([*gradients, *hits.values(), number])
        number.clamp_min_(1)  # asking would wait for the device
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient / number
        optimizer.step()
        for name, both in hits.items():
            values = zip(("loss", "train_top1"), (both / number).unbind(), strict=True)
            named = {self.named(name, key): v for key, v in values}
            log_equal(pl_module, named, on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not int(self._labelled) and trainer.is_global_zero:
            logger.warning("The probe %s learns nothing: no sample had a label.", self.kind)
        self._labelled = torch.zeros(())
        super().on_train_epoch_end(trainer, pl_module)

    def scores(self, name: str, features: Tensor) -> Tensor | None:
        if not self.heads:
            return None
        with without_autocast(features):
            scores: Tensor = self.heads[self.source.names.index(name)](features)
        return scores

    def _build(self, features: dict[str, Tensor]) -> Optimizer:
        with random_state_kept():
            torch.manual_seed(seed_of(self.seed, "online probe"))
            made = [self.head(x.shape[-1], self.num_classes or 0) for x in features.values()]
        self.heads = nn.ModuleList(made).to(next(iter(features.values())))
        self._optimizer = optimizer = self._make(self.heads.parameters())
        if self._loaded is not None:
            try:
                self.heads.load_state_dict(self._loaded["heads"])
            except RuntimeError as error:
                raise UserError(
                    f"the probe {self.kind} of the checkpoint has other features or classes; "
                    "continue with those, or start a new run"
                ) from error
            optimizer.load_state_dict(self._loaded["optimizer"])
            self._loaded = None
        return optimizer

    def state_dict(self) -> dict[str, Any]:
        if self._optimizer is None:
            return self._loaded or {}
        return {"heads": self.heads.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict or None


class OnlineAttentiveProbe(OnlineLinearProbe):
    """Trains a classifier of tokens beside the network: one learned query attends to them.

    As :class:`OnlineLinearProbe`, of a layer that returns tokens ``(N, T, F)`` or a map, whose
    positions are the tokens. Logs ``probe/attentive/...``.

    Args:
        heads: of the attention; divides F.
        options: see :class:`OnlineLinearProbe`.

    Example:
        >>> OnlineAttentiveProbe(features="encoder.blocks", num_classes=10).source.tokens
        True
    """

    kind: ClassVar[str] = "attentive"

    def __init__(self, *, heads: int = 1, **options: Any) -> None:
        super().__init__(tokens=True, **options)
        self.attention_heads = heads

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        return AttentiveHead(num_features, num_classes, heads=self.attention_heads)
