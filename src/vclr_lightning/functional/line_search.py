"""How far to go along a direction."""

from __future__ import annotations

import torch
from torch import Tensor


def hinge_step(a: Tensor, b: Tensor, slack: Tensor, move: Tensor, cost: float) -> Tensor:
    r"""Minimise squared hinges along directions: 1-D Newton, safeguarded by a bracket.

    Args:
        a: product of weights and step.
        b: squared norm of the step.
        slack: 1 - y w.x of each row.
        move: by how much it falls per unit of step.
        cost: C.

    Shape:
        - a, b: ``(c,)``; slack, move: ``(N, c)``; returns the lengths ``(c,)``

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> step = hinge_step(0 * one, one, one[:, None], one[:, None], 1.0)
        >>> round(step.item(), 6)  # of t^2 / 2 + (1 - t)^2
        0.666667
    """

    def slope(t: Tensor) -> tuple[Tensor, Tensor]:
        hinge = (slack - t * move).clamp(min=0)
        first = a + t * b - 2 * cost * (move * hinge).sum(0)
        second = b + 2 * cost * (move.square() * (hinge > 0)).sum(0)
        return first, second

    low, high = torch.zeros_like(a), torch.full_like(a, float("inf"))
    t = torch.ones_like(a)
    for _ in range(30):
        first, second = slope(t)
        low, high = torch.where(first < 0, t, low), torch.where(first > 0, t, high)
        guess = t - first / second.clamp(min=torch.finfo(t.dtype).tiny)
        inside = (guess > low) & (guess < high)
        middle = torch.where(high.isfinite(), 0.5 * (low + high), 2 * t)
        following = torch.where(first == 0, t, torch.where(inside, guess, middle))
        if bool(((following - t).abs() <= 1e-9 * t.abs()).all()):
            return following
        t = following
    return t
