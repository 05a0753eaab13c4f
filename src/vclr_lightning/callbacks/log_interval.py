"""Something of the training is logged in every epoch, however short."""

from __future__ import annotations

import math
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer


class LogEveryEpoch(Callback):
    """Shortens ``log_every_n_steps`` to the steps of an epoch where an epoch has fewer.

    The last step of each short epoch is logged then. Works with any LightningModule.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches, fitting = trainer.num_training_batches, cast(Any, trainer)
        if not fitting.log_every_n_steps or not math.isfinite(batches) or batches < 1:
            return
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        fitting.log_every_n_steps = min(fitting.log_every_n_steps, steps)
