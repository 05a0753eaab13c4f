"""Checks before training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from operator import length_hint

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import DDPStrategy, Trainer
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.queued import QueuedObjective

logger = logging.getLogger(__name__)

_SLOW = 0.01  # momentum of BatchNorm, in PyTorch's convention


def check_trainer(trainer: Trainer, *, device: torch.device, synchronised: bool) -> None:
    """Check strategy and device; ``synchronised``: whether BatchNorm spans all ranks.

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
    if synchronised and device.type != "cuda":
        raise UserError(
            f"batchnorm='sync' of a momentum encoder works on CUDA devices only, not on "
            f"{device.type}; use 'auto', 'shuffle' or 'split'"
        )


def check_synchronised(trainer: Trainer) -> None:
    """Raise a :class:`UserError` if BatchNorm is to span several processes on the CPU."""
    strategy = trainer.strategy
    if (
        isinstance(strategy, DDPStrategy)
        and strategy._layer_sync is not None
        and strategy.root_device.type != "cuda"
    ):
        raise UserError(
            "trainer.sync_batchnorm=true works on CUDA devices only, not on "
            f"{strategy.root_device.type}; set trainer.sync_batchnorm=false"
        )


def check_trainable(backbone: nn.Module, *, else_: str = "") -> None:
    """Refuse a network none of whose parameters requires a gradient; ``else_`` ends the message.

    Raises:
        UserError: see above.
    """
    parameters = list(backbone.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"no parameter of the backbone {type(backbone).__name__} requires a gradient, so none "
            f"would be trained; call requires_grad_(True) on it{else_}"
        )


def check_all_used(trainer: Trainer, module: nn.Module) -> None:
    """Check, after the first backward pass, that every parameter got a gradient, as DDP requires.

    Raises:
        UserError: one got none; the message names it.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy) or trainer.world_size == 1:
        return
    if strategy._ddp_kwargs.get("find_unused_parameters", False):
        return
    unused = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        raise UserError(
            f"the losses do not depend on {len(unused)} parameters, such as {unused[0]}, which "
            "several processes cannot train; leave the module out, freeze it by "
            "requires_grad_(False), or set trainer.strategy.find_unused_parameters=true"
        )


def warn_of_slow_statistics(trainer: Trainer, network: nn.Module) -> None:
    """Warn of BatchNorm whose running statistics, which evaluation uses, lag behind the weights."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    momenta = {layer.momentum for layer in layers if layer.track_running_stats}
    slow = [momentum for momentum in momenta if momentum is None or momentum < _SLOW]
    if slow and trainer.is_global_zero:
        logger.warning(
            "BatchNorm of %s has momentum %s: its running statistics, which evaluation uses, are "
            "averages over %s steps and lag behind weights that change. 0.1 is usual.",
            type(network).__name__,
            slow[0],
            "all" if slow[0] is None else f"about {1 / slow[0]:.0f}",
        )


def warn_of_long_queues(
    trainer: Trainer, objectives: Iterable[tuple[str, Objective]], *, videos: int
) -> None:
    """Warn of queues longer than the keys of an epoch: stale keys of a video become its negatives.

    No warning where the run ends before a queue holds that many.

    Args:
        trainer: of the run.
        objectives: by name.
        videos: number of videos in a rank's micro-batch.
    """
    if math.isinf(trainer.num_training_batches) or not trainer.is_global_zero:
        return
    batches = int(trainer.num_training_batches)
    epochs, steps = trainer.max_epochs, trainer.max_steps
    ends = [epochs * batches] if epochs is not None and epochs >= 0 else []
    ends += [steps * trainer.accumulate_grad_batches] if steps >= 0 else []
    # With limit_train_batches, the next epoch takes other videos; with overfit_batches, the same.
    same = bool(getattr(trainer, "overfit_batches", 0))
    seen = batches if same else length_hint(trainer.train_dataloader, batches)
    for name, objective in objectives:
        if not isinstance(objective, QueuedObjective):
            continue
        once, run = (
            n * videos * trainer.world_size * objective.keys_per_video
            for n in (seen, min(ends, default=math.inf))
        )
        if (held := min(objective.queue.size, run)) > once:
            logger.warning(
                "The queue of %r will hold %d keys, %.3g times those of one pass over the videos: "
                "stale keys of the same video act as negatives. queue_size=%d avoids that.",
                *(name, held, held / once, once),
            )
