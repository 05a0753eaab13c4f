"""Batches of videos at their positions."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningDataModule

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.loader import EpochLoader
from vclr_lightning.data.localization.positions import PositionSet


class LocalizationData(LightningDataModule):
    """Batches for training a localisation network, the same after any interruption.

    Args:
        train: the videos, all of them with annotations.
        batch_size: videos per optimizer step, over all devices and accumulated micro-batches.
        seed: of the order.

    Raises:
        UserError: from the trainer, there are fewer videos than a batch takes, or a checkpoint is
            of other features.
    """

    def __init__(self, train: PositionSet, *, batch_size: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.train = train
        self.batch_size = batch_size
        self.seed = seed
        self._fingerprint = train.fingerprint()

    def train_dataloader(self) -> EpochLoader:
        """Return the loader of this rank; Lightning calls it."""
        trainer = self.trainer
        share: dict[str, Any] = {}
        if trainer is not None:
            share = {
                "world_size": trainer.world_size,
                "rank": trainer.global_rank,
                "accumulate": trainer.accumulate_grad_batches,
            }
        batches = EpochBatches(len(self.train), batch_size=self.batch_size, seed=self.seed, **share)
        return EpochLoader(self.train, batches)

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["fingerprint"] != self._fingerprint:
            raise UserError(
                "the checkpoint was trained on other features or annotations; give the same to "
                "continue, or another name=... for a new run"
            )
