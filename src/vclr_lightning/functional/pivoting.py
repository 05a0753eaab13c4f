"""Small machines with squared hinge, given by the products of their rows, solved exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from vclr_lightning.functional.line_search import hinge_step

TRIES = 3  # full steps in a row that need not lessen what is wrong
LIMIT = 300  # steps; a problem that rounding keeps from ending ends there


def solve_products(products: Tensor, allowed: Tensor, guess: Tensor, *, cost: float) -> Tensor:
    r"""Maximise :math:`\sum_i a_i - \tfrac12 a^\top (Q + \tfrac1{2C}) a` over :math:`a \ge 0`.

    Many problems at once. Solves for those rows that are inside the margin, all others being zero;
    the solution says which rows are inside the margin next. Where that does not get on, steps are
    as long as the primal objective gets less, which is sure to end.

    Args:
        products: Q, :math:`y_i y_j\, x_i \cdot x_j`, float64.
        allowed: false for entries that stay zero.
        guess: entries that are likely to be positive.
        cost: C.

    Shape:
        - products: ``(c, m, m)``; allowed, guess: ``(c, m)``; returns ``(c, m)``

    Example:
        >>> products = torch.tensor([[[1.5, 3.0], [3.0, 8.5]]], dtype=torch.float64)
        >>> yes = torch.ones(1, 2, dtype=torch.bool)
        >>> solve_products(products, yes, yes, cost=1.0).round(decimals=9).tolist()
        [[0.5, 0.0]]
    """
    state = torch.zeros_like(products[:, 0])
    free = guess & allowed
    number = len(products)
    open_ = torch.arange(number, device=products.device)
    fewest = torch.full((number,), allowed.shape[1] + 1, device=products.device)
    tries = torch.full((number,), TRIES, device=products.device)
    q = products
    for _ in range(LIMIT):
        target = _solve(q, free[open_], cost)
        slack = 1 - torch.bmm(q, target[:, :, None])[:, :, 0]
        # A row is on the margin as far as rounding can tell: it stays what it is.
        rounding = 1e-12 * (1 + torch.bmm(q.abs(), target.abs()[:, :, None])[:, :, 0])
        inside = torch.where(slack.abs() <= rounding, free[open_], slack > 0) & allowed[open_]
        wrong = (inside != free[open_]).sum(1)
        better = wrong < fewest[open_]
        fewest[open_] = torch.minimum(fewest[open_], wrong)
        # Once a problem has to go by shorter steps it does so to its end.
        left = tries[open_]
        left = torch.where((left > 0) & better, TRIES, left - 1)
        tries[open_] = left
        short = (left <= 0) & (wrong > 0)
        if bool(short.any()):
            old = state[open_][short]
            target[short], inside[short] = _shorten(q[short], old, target[short], cost)
            inside &= allowed[open_]
        state[open_], free[open_] = target, inside
        going = wrong > 0
        if not bool(going.all()):
            open_ = open_[going]
            if not len(open_):
                break
            q = products[open_]
    return state.clamp(min=0)


def _shorten(q: Tensor, old: Tensor, target: Tensor, cost: float) -> tuple[Tensor, Tensor]:
    """Go towards ``target`` as far as the objective falls; also return who is inside there."""
    step = target - old
    before, change = (torch.bmm(q, v[:, :, None])[:, :, 0] for v in (old, step))
    length = hinge_step(
        (old * change).sum(1), (step * change).sum(1), (1 - before).T, change.T, cost
    )
    new = old + length[:, None] * step
    return new, (1 - before - length[:, None] * change) > 0


def _solve(q: Tensor, free: Tensor, cost: float) -> Tensor:
    """Solve ``(Q + 1 / 2C) a = 1`` for the free entries ``(c, m)`` of each; others are zero."""
    width = max(int(free.sum(1).max()), 1)
    order = free.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    real = free.gather(1, order)
    inner = q[
        torch.arange(len(q), device=q.device)[:, None, None], order[:, :, None], order[:, None]
    ]
    inner = inner * (real[:, :, None] & real[:, None, :])
    inner.diagonal(dim1=1, dim2=2).add_(torch.where(real, 1 / (2 * cost), 1.0))
    factor = torch.linalg.cholesky(inner)
    value = torch.cholesky_solve(real.to(q.dtype)[:, :, None], factor)[:, :, 0]
    return torch.zeros_like(q[:, 0]).scatter_(1, order, value * real)
