"""Learning-rate schedules, by optimizer step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vclr_lightning.core.errors import UserError


class SchedulerFactory(Protocol):
    """Builds a scheduler that is stepped once after every optimizer step."""

    def __call__(
        self, optimizer: Optimizer, *, steps_per_epoch: int, epochs: float
    ) -> LRScheduler: ...


class _StepSchedule(LRScheduler):
    """A closed formula of step and base rate. Only the position is saved, not the shape.

    LambdaLR multiplies the base rate instead, which rounds differently.
    """

    @abstractmethod
    def rate(self, step: int, base: float) -> float:
        """Return the learning rate of ``step`` for a group whose base rate is ``base``."""

    def get_lr(self) -> list[Any]:
        """Return the learning rate of the coming step, for each group."""
        return [self.rate(self.last_epoch, float(base)) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as plain numbers."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the saved position."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()


class WarmupCosine(_StepSchedule):
    """Linear warm-up, then cosine annealing, of every parameter group, stepped per iteration.

    Each group starts at its learning rate divided by ``multiplier``. A run that is no longer than
    the warm-up ends within it.

    Args:
        optimizer: its groups' learning rates are the peaks.
        steps_per_epoch: optimizer steps (not micro-batches) in an epoch.
        epochs: length of the run.
        warmup_epochs, warmup_steps: length of the warm-up; in steps, if these are given.
        multiplier: peak over first learning rate.
        eta_min: last learning rate.

    Raises:
        UserError: a length is negative, ``multiplier`` is below 1 or ``eta_min`` is negative.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        >>> scheduler = WarmupCosine(optimizer, steps_per_epoch=1, epochs=4, warmup_epochs=2)
        >>> [f"{scheduler.rate(step, 0.2):.6f}" for step in range(5)]
        ['0.002000', '0.101000', '0.200000', '0.100001', '0.000001']
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps_per_epoch: int,
        epochs: float,
        warmup_epochs: float = 5,
        warmup_steps: int | None = None,
        multiplier: float = 100,
        eta_min: float = 1e-6,
    ) -> None:
        if steps_per_epoch < 1 or min(epochs, warmup_epochs, warmup_steps or 0) < 0:
            raise UserError(
                f"negative length: {steps_per_epoch=}, {epochs=}, {warmup_epochs=}, {warmup_steps=}"
            )
        if not (1 <= multiplier < math.inf and 0 <= eta_min < math.inf):
            raise UserError(
                f"multiplier={multiplier} of the schedule must be at least 1, "
                f"and eta_min={eta_min} at least 0"
            )
        by_epochs = round(warmup_epochs * steps_per_epoch)
        self.warmup_steps = by_epochs if warmup_steps is None else warmup_steps
        self.total_steps = round(epochs * steps_per_epoch)
        self.multiplier = multiplier
        self.eta_min = eta_min
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        """Return the learning rate of ``step`` (0 is the first)."""
        warmup, multiplier = self.warmup_steps, self.multiplier
        if step <= warmup:
            if warmup == 0:
                return base
            return base * (warmup + (multiplier - 1) * step) / (warmup * multiplier)
        done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * done)) / 2


class EpochCosine(_StepSchedule):
    """Cosine annealing that is constant within an epoch, optionally after a linear warm-up.

    Epoch ``e`` of ``E`` has the rate ``base (1 + cos(pi e / E)) / 2``, so the last one is not 0, as
    in MoCo v2. Over the first ``warmup_steps`` steps it is multiplied by 1 / n, 2 / n, ..., 1.

    Args:
        optimizer: its groups' learning rates are the first.
        steps_per_epoch: optimizer steps (not micro-batches) in an epoch.
        epochs: length of the run.
        warmup_steps: length of the warm-up in optimizer steps.

    Raises:
        UserError: a length is negative.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = EpochCosine(optimizer, steps_per_epoch=2, epochs=2)
        >>> [f"{scheduler.rate(step, 1.0):.2f}" for step in range(4)]
        ['1.00', '1.00', '0.50', '0.50']
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps_per_epoch: int,
        epochs: float,
        warmup_steps: int = 0,
    ) -> None:
        if steps_per_epoch < 1 or epochs < 0 or warmup_steps < 0:
            raise UserError(f"negative length: {steps_per_epoch=}, {epochs=}, {warmup_steps=}")
        self.steps_per_epoch, self.epochs = steps_per_epoch, max(1.0, epochs)
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        """Return the learning rate of ``step`` (0 is the first)."""
        done = min(1.0, step // self.steps_per_epoch / self.epochs)
        cosine = (1 + math.cos(math.pi * done)) / 2
        return base * cosine * _warmed_up(step, self.warmup_steps)


class RampedCosine(_StepSchedule):
    """Cosine annealing to 0 over the whole run, whose first epochs rise linearly to its value then.

    The cosine does not begin after the ramp, so the highest rate is a little below the base rate,
    as in CVRL.

    Args:
        optimizer: its groups' learning rates are where the cosine begins.
        steps_per_epoch: optimizer steps (not micro-batches) in an epoch.
        epochs: length of the run.
        warmup_epochs: length of the ramp.

    Raises:
        UserError: a length is negative.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = RampedCosine(optimizer, steps_per_epoch=2, epochs=2, warmup_epochs=1)
        >>> [f"{scheduler.rate(step, 1.0):.2f}" for step in range(4)]
        ['0.00', '0.25', '0.50', '0.15']
    """

    def __init__(
        self, optimizer: Optimizer, *, steps_per_epoch: int, epochs: float, warmup_epochs: float = 5
    ) -> None:
        if steps_per_epoch < 1 or epochs < 0 or warmup_epochs < 0:
            raise UserError(
                f"steps_per_epoch={steps_per_epoch}, epochs={epochs} and "
                f"warmup_epochs={warmup_epochs} of the schedule must not be negative"
            )
        self.warmup_steps = round(warmup_epochs * steps_per_epoch)
        self.total_steps = max(1, round(epochs * steps_per_epoch))
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        """Return the learning rate of ``step`` (0 is the first)."""
        ramp = step / self.warmup_steps if step < self.warmup_steps else 1.0
        within = self.warmup_steps < self.total_steps  # otherwise the cosine is not reached
        done = min(1.0, max(step, self.warmup_steps) / self.total_steps) if within else 0.0
        return base * ramp * (1 + math.cos(math.pi * done)) / 2


class StepDecay(_StepSchedule):
    """Multiply the learning rate of every group by ``gamma`` at each milestone, per iteration.

    Args:
        optimizer: its groups' learning rates are the first.
        steps_per_epoch: optimizer steps (not micro-batches) in an epoch.
        epochs: length of the run; a milestone beyond it is never reached.
        milestones: epochs after which the rate falls.
        gamma: factor.
        warmup_steps: optimizer steps over which the rate rises linearly at first, by 1 / n of it.

    Raises:
        UserError: a milestone or ``warmup_steps`` is negative, or ``gamma`` is not above 0.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = StepDecay(optimizer, steps_per_epoch=2, epochs=3, milestones=[1])
        >>> [scheduler.rate(step, 1.0) for step in range(4)]
        [1.0, 1.0, 0.1, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps_per_epoch: int,
        epochs: float,
        milestones: Sequence[float],
        gamma: float = 0.1,
        warmup_steps: int = 0,
    ) -> None:
        if warmup_steps < 0:
            raise UserError(f"warmup_steps={warmup_steps} of the schedule must not be negative")
        if any(epoch < 0 for epoch in milestones) or not 0 < gamma < math.inf:
            raise UserError(
                f"milestones={list(milestones)} of the schedule must not be negative, and "
                f"gamma={gamma} must be above 0"
            )
        self.milestones = sorted(round(epoch * steps_per_epoch) for epoch in milestones)
        self.gamma, self.warmup_steps = gamma, warmup_steps
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        """Return the learning rate of ``step`` (0 is the first)."""
        passed = sum(step >= milestone for milestone in self.milestones)
        return base * float(self.gamma**passed) * _warmed_up(step, self.warmup_steps)


def _warmed_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
