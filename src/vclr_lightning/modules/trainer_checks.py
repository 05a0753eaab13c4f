"""What a Trainer must be like, and what is read off it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy

from vclr_lightning.core.errors import UserError
from vclr_lightning.modules.key_batchnorm import KeyBatchNorm
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.queued import QueuedObjective

logger = logging.getLogger(__name__)


def check_trainer(trainer: Trainer, *, device: torch.device, key_batchnorm: KeyBatchNorm) -> None:
    """Refuse what would train wrongly.

    Raises:
        UserError: DDP would broadcast the queues before every forward, or BatchNorm cannot be
            synchronised on this device.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("broadcast_buffers", True):
        raise UserError(
            "DDP would broadcast the queues in every forward, though they are the same on all "
            "ranks; use strategy=DDPStrategy(broadcast_buffers=False)"
        )
    if key_batchnorm == "sync" and device.type != "cuda":
        raise UserError(
            f"key_batchnorm='sync' works on CUDA devices only, not on {device.type}; "
            "use 'auto', 'shuffle' or 'split'"
        )


def run_length(trainer: Trainer) -> tuple[int, float]:
    """Return the optimizer steps of an epoch, and the length of the run in epochs.

    Raises:
        UserError: one of them is not known.
    """
    trainer.fit_loop.setup_data()
    total = trainer.estimated_stepping_batches
    batches = trainer.num_training_batches
    if math.isinf(total) or math.isinf(batches):
        raise UserError(
            "a learning-rate schedule needs the length of the run; set trainer.max_epochs or "
            "trainer.max_steps, and trainer.limit_train_batches for data of unknown length"
        )
    steps = max(1, math.ceil(batches / trainer.accumulate_grad_batches))
    return steps, total / steps


def warn_of_long_queues(
    trainer: Trainer, objectives: Iterable[tuple[str, Objective]], *, videos: int
) -> None:
    """Say which queues hold more keys than an epoch yields: every video's own keys among them.

    Args:
        trainer: tells the length of an epoch.
        objectives: by name.
        videos: of one rank's micro-batch.
    """
    if math.isinf(trainer.num_training_batches):
        return
    seen = trainer.num_training_batches * videos * trainer.world_size
    for name, objective in objectives:
        if not isinstance(objective, QueuedObjective) or not trainer.is_global_zero:
            continue
        yielded = int(seen * objective.keys_per_video)
        if objective.queue.size > yielded:
            logger.warning(
                "The queue of %r holds %d keys, but an epoch yields only %d: it holds several keys "
                "of most videos, some of them old. A queue_size of at most %d avoids that.",
                name,
                objective.queue.size,
                yielded,
                yielded,
            )
