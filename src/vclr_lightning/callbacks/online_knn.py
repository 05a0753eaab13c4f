"""Classify features by their nearest neighbours among those of training steps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vclr_lightning.callbacks.feature_callback import log_equal
from vclr_lightning.callbacks.online_probe import OnlineProbe
from vclr_lightning.callbacks.recent_rows import RecentRows
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.functional.knn import knn_scores

_QUERIES = 1024  # of the bank, classified after an epoch
_CLASSES = ""  # name of the labels among the rows of the layers


class OnlineKNN(OnlineProbe):
    """Classifies held-out features by the nearest features of the present epoch's training steps.

    The ``k`` nearest by cosine similarity s vote with weight exp(s / temperature) (Wu et al.,
    "Unsupervised feature learning via non-parametric instance discrimination", 2018). Beside
    ``probe/knn/val_top1``, ``probe/knn/train_top1`` is logged after each epoch: of the last 1024
    training samples, each among all others. Training features are those of the steps, augmented,
    and each is as old as its step; a bank that starts anew in each epoch holds no sample twice.

    Args:
        k: number of neighbours.
        temperature: of the votes.
        bank: number of the last training samples to search, over all ranks; part of checkpoints.
        options: see :class:`~vclr_lightning.callbacks.online_probe.OnlineProbe`.

    Raises:
        UserError: an argument is out of range; see also there.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> probe = OnlineKNN(features=["backbone.layer3", "backbone.layer4"], k=5)
        >>> trainer = Trainer(callbacks=[probe], accelerator="cpu", logger=False)
    """

    kind: ClassVar[str] = "knn"

    def __init__(
        self, *, k: int = 20, temperature: float = 0.07, bank: int = 8192, **options: Any
    ) -> None:
        super().__init__(**options)
        if k < 1 or bank < 2 or temperature <= 0:
            raise UserError(
                f"k={k}, bank={bank} and temperature={temperature} of k-NN must be at least 1, at "
                "least 2, and positive"
            )
        self.k, self.temperature = k, temperature
        self.recent = RecentRows(bank)
        self._epoch = -1  # of the bank
        self._searched: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":  # another training, which may be of another module
            self._epoch = -1

    def on_features(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        features: dict[str, Tensor],
        batch: Any,
    ) -> None:
        if trainer.current_epoch != self._epoch:
            self.recent.clear()
            self._epoch = trainer.current_epoch
        rows = {name: views.mean(dim=1) for name, views in features.items()}
        labels = self.labels_of(batch, len(next(iter(rows.values()))))
        usable = torch.stack([x.isfinite().all(dim=1) for x in rows.values()]).all(dim=0)
        usable &= labels >= 0
        self.recent.add({name: x[usable] for name, x in rows.items()} | {_CLASSES: labels[usable]})

    def prepare(self) -> None:
        self._searched = self.recent.gathered()

    def scores(self, name: str, features: Tensor) -> Tensor | None:
        if not len(self._searched.get(_CLASSES, ())) or not len(features):
            return None
        return self._vote(features, self._searched[name])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.prepare()
        labels = self._searched.get(_CLASSES, torch.empty(0))
        values = {}
        for name in self.source.names if len(labels) > 1 else ():
            bank, own = self._searched[name], torch.arange(len(labels), device=labels.device)
            groups = {"query_groups": own[-_QUERIES:], "gallery_groups": own}
            voted = self._vote(bank[-_QUERIES:], bank, **groups).argmax(dim=1)
            hits = (voted == labels[-_QUERIES:]).float().mean()
            values[self.named(name, "train_top1")] = hits
        log_equal(pl_module, values)
        super().on_train_epoch_end(trainer, pl_module)

    def _vote(self, features: Tensor, bank: Tensor, **groups: Tensor) -> Tensor:
        labels = self._searched[_CLASSES]
        classes = self.num_classes or int(labels.max()) + 1
        return knn_scores(
            features,
            bank,
            labels,
            num_classes=classes,
            k=self.k,
            temperature=self.temperature,
            **groups,
        )

    def state_dict(self) -> dict[str, Any]:
        return {**self.recent.state_dict(), "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]
        self.recent.load_state_dict(state_dict)
