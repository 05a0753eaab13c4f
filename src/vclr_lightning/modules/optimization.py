"""Optimizers: parameter groups with their own settings, and schedules stepped by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.core.schedules import SchedulerFactory

Scales = Mapping[str, tuple[float, float]]

TSM_SCALES: Scales = {
    "weights": (1, 1),
    "biases": (2, 0),
    "norms": (1, 0),
    "classifier weight": (5, 1),
    "classifier bias": (10, 0),
}
"""Factors of learning rate and weight decay of each parameter group."""

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def tsm_groups(backbone: nn.Module, classifier: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters in the non-empty groups of TSM's recipe.

    Example:
        >>> backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> groups = tsm_groups(backbone, nn.Linear(4, 2))
        >>> {name: len(parameters) for name, parameters in groups.items()}
        {'weights': 1, 'biases': 1, 'norms': 2, 'classifier weight': 1, 'classifier bias': 1}
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in TSM_SCALES}
    for module in backbone.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = "biases" if name == "bias" else "weights"
            groups["norms" if isinstance(module, NORMS) else kind].append(parameter)
    for name, parameter in classifier.named_parameters():
        kind = "classifier bias" if name.endswith("bias") else "classifier weight"
        groups[kind].append(parameter)
    trained = {name: [p for p in some if p.requires_grad] for name, some in groups.items()}
    return {name: some for name, some in trained.items() if some}


def grouped_optimizer(
    build: Callable[[Iterable[Any]], Optimizer],
    groups: Mapping[str, list[nn.Parameter]],
    *,
    scales: Scales = TSM_SCALES,
) -> Optimizer:
    """Build an optimizer with scaled learning rate and weight decay for each group.

    Args:
        build: takes parameter groups, such as ``partial(SGD, lr=0.1)``.
        groups: parameters by name.
        scales: factors of learning rate and weight decay, by name.

    Example:
        >>> from functools import partial
        >>> from torch.optim import SGD
        >>> groups = {"classifier bias": list(nn.Linear(2, 2, bias=False).parameters())}
        >>> optimizer = grouped_optimizer(partial(SGD, lr=0.1, weight_decay=0.5), groups)
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
        (1.0, 0.0)
    """
    optimizer = build([{"params": some, "name": name} for name, some in groups.items()])
    for group in optimizer.param_groups:
        rate, decay = scales[group["name"]]
        group["lr"] *= rate
        group["weight_decay"] *= decay
    return optimizer


def with_schedule(
    optimizer: Optimizer, scheduler: SchedulerFactory | None, module: LightningModule
) -> Any:
    """Return the result of ``configure_optimizers`` with a schedule that every step advances."""
    if scheduler is None:
        return optimizer
    steps_per_epoch, epochs = run_length(module.trainer)
    schedule = scheduler(optimizer, steps_per_epoch=steps_per_epoch, epochs=epochs)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def run_length(trainer: Trainer) -> tuple[int, float]:
    """Return the optimizer steps of an epoch, and the length of the run in epochs.

    Raises:
        UserError: one of them is unknown.
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
