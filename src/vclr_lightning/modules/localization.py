"""The LightningModule of temporal action localization."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vclr_lightning.core import distributed
from vclr_lightning.core.random import torch_generator
from vclr_lightning.functional.bmn_losses import bmn_losses
from vclr_lightning.modules.metric_averaging import MetricAveragingModule


class LocalizationModule(MetricAveragingModule):
    """Train a boundary-matching network: action boundaries and the quality of proposals.

    The regressed cells are drawn by (seed, epoch, batch, rank), so a resumed run draws the same.

    Args:
        model: takes features ``(B, F, T)``, returns a
            :class:`~vclr_lightning.models.bmn.BMNOutput`.
        optimizer: takes the parameters, such as ``partial(Adam, lr=1e-3)``.
        scheduler: takes the optimizer; stepped after every epoch. ``None`` for a constant rate.
        seed: of the drawn cells.

    Example:
        ::

            module = LocalizationModule(
                BMN(num_features=200), optimizer=partial(torch.optim.Adam, lr=1e-3)
            )
            Trainer(max_epochs=9).fit(module, datamodule=LocalizationData(train))
    """

    small_steps = "Adam"

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        self._optimizer = optimizer
        self._scheduler = scheduler

    def forward(self, features: Tensor) -> Any:
        """Return the network's probabilities of every position and proposal."""
        return self.model(features)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.train()  # Lightning leaves modes as they are

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        output = self.model(batch["features"])
        keys = (self.current_epoch, batch_idx, distributed.rank())
        # In float32 under any precision: sums over a million cells.
        losses = bmn_losses(
            output.maps.float(),
            output.start.float(),
            output.end.float(),
            iou=batch["iou"],
            start_label=batch["start"],
            end_label=batch["end"],
            generator=torch_generator(self.seed, "cells", *keys, device=self.device),
        )
        values = {f"train/{name}": loss for name, loss in losses._asdict().items()}
        self.log_means(
            {"train/loss": losses.total, **values}, videos=len(output.maps), shown=["train/loss"]
        )
        return losses.total

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        if self._scheduler is None:
            return optimizer
        scheduler = self._scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}
