"""Squared-hinge machines solved exactly for some rows, to which others are added as they matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.functional.pivoting import solve_products

FIRST = 192  # rows of a class to begin with
ADDED = 96  # rows added in a round, at least
LARGEST = 512  # rows taken even where there are fewer features
CROWDED = 4  # times as many rows inside the margin as may be taken: too many will stay there


@dataclass(frozen=True)
class Duals:
    """What :func:`solve_duals` came to, class by class.

    Attributes:
        weight: ``(c, F)``.
        objective: ``(c,)`` of the primal problem.
        gap: ``(c,)`` above the dual problem.
        rounds: taken.
    """

    weight: Tensor
    objective: Tensor
    gap: Tensor
    rounds: int


def solve_duals(
    x: Tensor, sign: Tensor, start: Tensor, *, cost: float, tolerance: float, limit: int
) -> Duals:
    r"""Solve the duals of the problems of :func:`~vclr_lightning.functional.svm.fit_linear_svm`.

    With :math:`w = \sum_i \alpha_i y_i x_i` they are to maximise

    .. math:: \sum_i \alpha_i - \tfrac1{4C} \sum_i \alpha_i^2 - \tfrac12 \|w\|^2, \alpha \ge 0

    over a class's rows of now; those that are left inside the margin are added. The maximum rises
    in every round, so it ends at the solution. It stops where the gap is small enough, where no
    row is inside the margin, and where a class would need more rows than there are features; one
    that shows this at once keeps its ``start``, with a gap of infinity.

    Args:
        x: one row per sample.
        sign: +1 for a class's rows, -1 for others.
        start: weights by which the first rows are chosen.
        cost: C.
        tolerance: largest relative gap.
        limit: bound on rounds.

    Shape:
        - x: ``(N, F)``; sign: ``(c, N)``; start: ``(c, F)``
    """
    largest = min(len(x), max(LARGEST, x.shape[1]))
    rows = _Rows(x, sign)
    rows.add(1 - sign * (start @ x.T), min(FIRST, largest))
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
        crowded = left & ((slack > 0).sum(1) > CROWDED * largest)
        weight[todo[crowded]], gap[todo[crowded]] = start[todo[crowded]], torch.inf
        left &= ~crowded
        if not bool(left.any()) or rows.size == largest:
            break
        todo, slack = todo[left], slack[left]
        rows.keep(left)
        if not rows.add(slack, min(max(ADDED, rows.size // 3), largest - rows.size)):
            break
    return Duals(weight, objective.to(x.dtype), gap.to(x.dtype), rounds)


class _Rows:
    """Rows of each class, and their products."""

    def __init__(self, x: Tensor, sign: Tensor) -> None:
        c = len(sign)
        self.x, self.sign = x, sign
        self.taken = torch.zeros_like(sign, dtype=torch.bool)  # (c, N)
        self.index = torch.zeros((c, 0), dtype=torch.int64, device=x.device)  # (c, m)
        self.real = torch.zeros((c, 0), dtype=torch.bool, device=x.device)  # false: fills up
        self.signed: list[Tensor] = []  # (c, k, F) of y x, float64, a block for each round
        self.products = x.new_zeros((c, 0, 0), dtype=torch.float64)
        self.support = self.real  # (c, m), alpha > 0 in the last solution

    @property
    def size(self) -> int:
        return self.index.shape[1]

    def keep(self, classes: Tensor) -> None:
        """Forget all classes but those where ``classes`` ``(c,)`` is true."""
        if bool(classes.all()):
            return
        for name in ("sign", "taken", "index", "real", "products", "support"):
            setattr(self, name, getattr(self, name)[classes])
        self.signed = [block[classes] for block in self.signed]

    def add(self, slack: Tensor, count: int) -> bool:
        """Add up to ``count`` rows of the most slack to each class; say whether there are any."""
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
