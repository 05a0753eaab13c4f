"""Evaluate a classifier on held-out videos during its training."""

from __future__ import annotations

from typing import Any

import torch

from vclr_lightning.callbacks.epoch_ends import EpochEnds
from vclr_lightning.callbacks.video_scores import VideoViews, score_videos
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.functional.accuracy import topk_accuracy


class HeldOutAccuracy(CheckedCallback):
    """Logs ``val/top1`` of the data module's ``val`` videos after every few epochs and the last.

    Works with any LightningModule that has ``scores(views)``, see
    :meth:`vclr_lightning.modules.finetune.FinetuneModule.scores`.

    Args:
        every_n_epochs: epochs between two evaluations; there is one after the last, too.
        every_n_steps: optimizer steps instead, at the end of the epoch that completes them.
        views: frames and crops of each video.

    Raises:
        UserError: from the start of training, where there are no held-out videos with labels.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 5,
        every_n_steps: int | None = None,
        views: VideoViews | None = None,
    ) -> None:
        super().__init__()
        self.due = EpochEnds(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        self.views = views or VideoViews(num_segments=8)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there are held-out videos with labels."""
        held_out: Any = getattr(getattr(trainer, "datamodule", None), "val", None) or ()
        if not any(held_out.label(row) >= 0 for row in range(len(held_out))):
            raise UserError(
                "no videos with labels are held out, which the accuracy during training needs; "
                "hold some out (data.holdout=0.05), or leave it out "
                "(callbacks.online=null monitor=null)"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.due(trainer):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with random_state_kept(), trainer.precision_plugin.forward_context():
            scored = score_videos(
                pl_module, data, data.val, views=self.views, device=pl_module.device
            )
        known = scored.label >= 0
        value = topk_accuracy(scored.scores[known], scored.label[known]) if known.any() else 0.0
        # All ranks have the same value; without sync_dist Lightning warns.
        logged = torch.tensor(value, device=pl_module.device)
        pl_module.log("val/top1", logged, prog_bar=True, sync_dist=True, batch_size=1)
