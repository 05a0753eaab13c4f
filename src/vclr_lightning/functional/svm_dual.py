"""Squared-hinge SVM by an active set: solved exactly for some rows, to which others are added."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.functional.svm_primal import hinge_step

_FIRST = 192  # rows of a class in the first round
_ADDED = 96  # rows added in a round, at least
_LARGEST = 512  # rows taken even where there are fewer features
_CROWDED = 4  # times as many rows inside the margin as may be taken: too many will stay there
_TRIES = 3  # full pivoting steps in a row that need not reduce the number of wrong rows
_PIVOTS = 300  # steps at most; ends a problem that rounding keeps from ending


@dataclass(frozen=True)
class Duals:
    """Result of :func:`solve_duals`, by class."""

    weight: Tensor  # (c, F)
    objective: Tensor  # (c,), of the primal problem
    gap: Tensor  # (c,), to the dual problem
    rounds: int


def solve_duals(
    x: Tensor, sign: Tensor, start: Tensor, *, cost: float, tolerance: float, limit: int
) -> Duals:
    r"""Solve the duals of the problems of :func:`~vclr_lightning.functional.svm.fit_linear_svm`.

    With :math:`w = \sum_i \alpha_i y_i x_i` they are to maximise

    .. math:: \sum_i \alpha_i - \tfrac1{4C} \sum_i \alpha_i^2 - \tfrac12 \|w\|^2, \alpha \ge 0

    over a class's active rows, to which those left inside the margin are added. The maximum rises
    in every round, so it ends at the solution. It stops when the gap is small enough, when no other
    row is inside the margin, and when a class would need more rows than there are features; a class
    that shows this at once keeps its ``start``, with a gap of infinity.

    Shape:
        - x: ``(N, F)``; sign: ``(c, N)``, +1 for a class's rows, -1 for others
        - start: ``(c, F)``, weights by which the first rows are chosen
    """
    largest = min(len(x), max(_LARGEST, x.shape[1]))
    rows = _ActiveRows(x, sign)
    rows.add(1 - sign * (start @ x.T), min(_FIRST, largest))
    weight = torch.zeros_like(start)
    objective = weight.new_zeros(len(sign), dtype=torch.float64)
    gap = torch.zeros_like(objective)
    todo = torch.arange(len(sign), device=x.device)
    rounds = 0
    while rounds < limit:
        rounds += 1
        alpha, weight[todo], slack = rows.solve(cost)
        objective[todo], gap[todo] = _certificate(weight[todo], slack, alpha, cost)
        left = gap[todo] > tolerance * (objective[todo] - gap[todo])
        crowded = left & ((slack > 0).sum(1) > _CROWDED * largest)
        weight[todo[crowded]], gap[todo[crowded]] = start[todo[crowded]], torch.inf
        left &= ~crowded
        if not bool(left.any()) or rows.size == largest:
            break
        todo, slack = todo[left], slack[left]
        rows.keep(left)
        if not rows.add(slack, min(max(_ADDED, rows.size // 3), largest - rows.size)):
            break
    return Duals(weight, objective.to(x.dtype), gap.to(x.dtype), rounds)


class _ActiveRows:
    """The active rows of each class, and their products."""

    def __init__(self, x: Tensor, sign: Tensor) -> None:
        c = len(sign)
        self.x, self.sign = x, sign
        self.taken = torch.zeros_like(sign, dtype=torch.bool)  # (c, N)
        self.index = torch.zeros((c, 0), dtype=torch.int64, device=x.device)  # (c, m)
        self.real = torch.zeros((c, 0), dtype=torch.bool, device=x.device)  # false: padding
        self.signed: list[Tensor] = []  # (c, k, F) of y x, float64, a block for each round
        self.products = x.new_zeros((c, 0, 0), dtype=torch.float64)
        self.support = self.real  # (c, m), alpha > 0 in the last solution

    @property
    def size(self) -> int:
        return self.index.shape[1]

    def keep(self, classes: Tensor) -> None:
        """Drop all classes but those where ``classes`` ``(c,)`` is true."""
        if bool(classes.all()):
            return
        for name in ("sign", "taken", "index", "real", "products", "support"):
            setattr(self, name, getattr(self, name)[classes])
        self.signed = [block[classes] for block in self.signed]

    def add(self, slack: Tensor, count: int) -> bool:
        """Add the ``count`` rows of the most slack to each class; return whether there were any."""
        free = ~self.taken
        if self.size:
            free &= slack > 0
        count = min(count, int(free.sum(1).max()))
        if not count:
            return False
        value, index = slack.masked_fill(~free, -torch.inf).topk(count, dim=1)
        real = value > -torch.inf
        self.taken.scatter_(1, index, real | self.taken.gather(1, index))
        new = self.x[index].double()
        new.mul_((self.sign.gather(1, index) * real)[:, :, None])
        self.signed.append(new)
        below = torch.cat([new @ block.mT for block in self.signed], dim=2)  # (c, count, m + count)
        above = torch.cat([self.products, below[:, :, : self.size].mT], dim=2)
        self.products = torch.cat([above, below], dim=1)
        self.index = torch.cat([self.index, index], dim=1)
        self.real = torch.cat([self.real, real], dim=1)
        self.support = torch.cat([self.support, real], dim=1)
        return True

    def solve(self, cost: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return alpha ``(c, N)`` float64, weight ``(c, F)`` and slack ``(c, N)``."""
        found = solve_products(self.products, self.real, self.support, cost=cost)
        self.support = found > 0
        alpha = torch.zeros_like(self.sign, dtype=torch.float64)
        alpha.scatter_add_(1, self.index, found)
        weight = (alpha * self.sign).to(self.x.dtype) @ self.x
        return alpha, weight, 1 - self.sign * (weight @ self.x.T)


def _certificate(
    weight: Tensor, slack: Tensor, alpha: Tensor, cost: float
) -> tuple[Tensor, Tensor]:
    """Objective and duality gap ``(c,)``; the gap as a sum of terms that are never negative."""
    slack = slack.double()
    hinge = slack.clamp(min=0)
    objective = 0.5 * weight.double().square().sum(1) + cost * hinge.square().sum(1)
    gap = cost * (hinge - alpha / (2 * cost)).square().sum(1) - (alpha * slack.clamp(max=0)).sum(1)
    return objective, gap


def solve_products(products: Tensor, allowed: Tensor, guess: Tensor, *, cost: float) -> Tensor:
    """Maximise ``sum(a) - a' (Q + 1 / 2C) a / 2`` over ``a >= 0``, exactly, for many small Q.

    Block principal pivoting: solves for the rows inside the margin, all others being zero; the
    solution determines which rows are inside the margin next. Where that makes no progress, a line
    search on the primal objective shortens the step, which is certain to end.

    Args:
        products: Q, the products ``y_i y_j x_i . x_j`` of the rows, float64.
        allowed: false for entries that stay zero.
        guess: entries that are likely to be positive.
        cost: C.

    Shape: - products: ``(c, m, m)``; allowed, guess: ``(c, m)``; returns ``(c, m)``

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
    tries = torch.full((number,), _TRIES, device=products.device)
    q = products
    for _ in range(_PIVOTS):
        target = _solve(q, free[open_], cost)
        slack = 1 - torch.bmm(q, target[:, :, None])[:, :, 0]
        # A row on the margin up to rounding keeps its state.
        rounding = 1e-12 * (1 + torch.bmm(q.abs(), target.abs()[:, :, None])[:, :, 0])
        inside = torch.where(slack.abs() <= rounding, free[open_], slack > 0) & allowed[open_]
        wrong = (inside != free[open_]).sum(1)
        better = wrong < fewest[open_]
        fewest[open_] = torch.minimum(fewest[open_], wrong)
        # Once a problem needs shorter steps, it takes them to its end.
        left = tries[open_]
        left = torch.where((left > 0) & better, _TRIES, left - 1)
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
    """Step towards ``target`` as far as the objective falls; also return who is inside there."""
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
