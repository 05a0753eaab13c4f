"""The momentum (key) encoder: a copy that follows by an exponential moving average."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """Return a copy of ``module`` that never gets a gradient.

    Example:
        >>> key = momentum_copy(nn.Linear(2, 2))
        >>> any(p.requires_grad for p in key.parameters())
        False
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def momentum_update(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Set ``key <- momentum * key + (1 - momentum) * query`` in place for all (query, key) modules.

    Parameters only, all at once: buffers, such as BatchNorm's statistics, stay the key encoder's.

    Example:
        >>> query, key = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> momentum_update([(query, key)], 0.0)
        >>> bool((query.weight == key.weight).all())
        True
    """
    modules = list(pairs)
    queries: list[Tensor] = [p for query, _ in modules for p in query.parameters()]
    keys: list[Tensor] = [p for _, key in modules for p in key.parameters()]
    if keys:
        torch._foreach_lerp_(keys, queries, 1 - momentum)


class MomentumSchedule(Protocol):
    """The momentum of a momentum encoder after optimizer step ``step`` of ``total_steps``."""

    def __call__(self, step: int, total_steps: int) -> float: ...


@dataclass(frozen=True, kw_only=True)
class CosineMomentum:
    """Momentum that rises from ``start`` to ``end`` by half a cosine (BYOL, Section 3.1).

    Raises:
        UserError: a value is not between 0 and 1.

    Example:
        >>> momentum = CosineMomentum(start=0.99, end=1.0)
        >>> [round(momentum(step, 5), 4) for step in range(5)]
        [0.99, 0.9915, 0.995, 0.9985, 1.0]
    """

    start: float = 0.996
    end: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise UserError(f"start={self.start} and end={self.end} of a momentum must be 0 to 1")

    def __call__(self, step: int, total_steps: int) -> float:
        done = min(1.0, step / max(1, total_steps - 1))
        return self.end - (self.end - self.start) * (1 + math.cos(math.pi * done)) / 2


def check_momentum(momentum: float | MomentumSchedule, *, what: str) -> None:
    """Raise a :class:`UserError` that names ``what`` unless it is 0 to 1, or a schedule.

    Example:
        >>> check_momentum(1.5, what="of the teacher")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: momentum=1.5 of the teacher must be between 0 and 1
    """
    if callable(momentum):
        return
    if not isinstance(momentum, int | float):
        raise UserError(f"momentum={momentum!r} {what} must be a number, or a schedule")
    if not 0 <= momentum <= 1:
        raise UserError(f"momentum={momentum} {what} must be between 0 and 1")


def momentum_at(
    momentum: float | MomentumSchedule, step: int, total_steps: Callable[[], int]
) -> float:
    """Return the momentum of the update after optimizer step ``step`` (from 0).

    Raises:
        UserError: a schedule returns a value that is not between 0 and 1.

    Example:
        >>> momentum_at(CosineMomentum(start=0.9), 4, lambda: 5), momentum_at(0.99, 4, lambda: 5)
        (1.0, 0.99)
    """
    if isinstance(momentum, int | float):
        return float(momentum)
    value = float(momentum(step, total_steps()))
    if not 0 <= value <= 1:
        raise UserError(f"the momentum schedule returns {value} in step {step}, not 0 to 1")
    return value
