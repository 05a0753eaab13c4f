"""Truncated Newton for squared hinges: for classes with more support vectors than features."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.line_search import hinge_step

_ROWS = 8192  # squared together


class Turned:
    """Rows, and the same along their principal axes, where they do not correlate.

    These are another copy of all rows. It is made when a class first needs it, and then once.

    Args:
        x: ``(N, F)``.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @cached_property
    def axes(self) -> Tensor:
        """Orthonormal basis ``(F, r)`` of the rows' span, r = min(N, F)."""
        x, basis = self.x, None
        if len(x) < x.shape[1]:
            basis = torch.linalg.qr(x.T).Q  # (F, N)
            x = x @ basis
        axes: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors
        return axes if basis is None else basis @ axes

    @cached_property
    def rows(self) -> Tensor:
        """``(N, r)``"""
        return self.x @ self.axes


def newton(
    turned: Turned, sign: Tensor, start: Tensor, *, cost: float, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Minimise the primal problems of :func:`~vclr_lightning.functional.svm.fit_linear_svm`.

    Newton steps by conjugate gradients along the rows' principal axes, with an exact line search,
    batched over classes. The duality gap is half the squared gradient.

    Args:
        turned: one row per sample, ``(N, F)``.
        sign: +1 for a class's rows, -1 for others.
        start: weights to begin at.
        cost: C.
        tolerance: largest relative gap.
        limit: bound on steps.

    Shape:
        - sign: ``(N, c)``; start: ``(c, F)``
        - returns: weight ``(c, F)``, objective and gap ``(c,)``, and the number of steps

    Raises:
        UserError: the gap cannot be reached in this dtype.
    """
    axes, x = turned.axes, turned.rows  # a nearly diagonal Hessian
    w = (start @ axes).T  # (r, c)
    slack = 1 - sign * (x @ w)
    stubborn = torch.zeros(sign.shape[1], dtype=torch.bool, device=x.device)
    for iteration in range(limit + 1):
        hinge = slack.clamp(min=0)
        objective = 0.5 * w.square().sum(0) + cost * hinge.square().sum(0)
        gradient = w - 2 * cost * (x.T @ (sign * hinge))
        gap = 0.5 * gradient.square().sum(0)
        todo = gap > tolerance * (objective - gap)  # also where gap exceeds the objective
        if not bool(todo.any()):
            return (w.T @ axes.T).contiguous(), objective, gap, iteration
        active = (slack > 0).to(x.dtype)
        scale = 1 + 2 * cost * _squares(x, active)  # diagonal of the Hessian
        step, solved = _conjugate_gradients(x, active, scale, gradient, cost, todo & ~stubborn)
        stubborn |= todo & ~solved
        for index in (todo & stubborn).nonzero()[:, 0].tolist():
            rows = x[active[:, index] > 0]
            step[:, index] = _solve_exactly(rows, -gradient[:, index, None], cost)[:, 0]
        move = sign * (x @ step)  # y (x . step): the slack falls by this per unit of step
        length = hinge_step((w * step).sum(0), step.square().sum(0), slack, move, cost)
        w = w + length * step
        slack = slack - length * move
    raise UserError(
        f"the linear machine is not within {tolerance:g} of its minimum after {limit} steps in "
        f"{x.dtype}; give the features as float64, or scale them down"
    )


def _squares(x: Tensor, active: Tensor) -> Tensor:
    """``x.square().T @ active``, whose squares need not all be held: ``(r, c)``."""
    total = torch.zeros(x.shape[1], active.shape[1], dtype=x.dtype, device=x.device)
    for rows, own in zip(torch.split(x, _ROWS), torch.split(active, _ROWS), strict=True):
        total.addmm_(rows.square().T, own)
    return total


def _conjugate_gradients(
    x: Tensor, active: Tensor, scale: Tensor, gradient: Tensor, cost: float, todo: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve ``(I + 2 C X' D X) d = -g`` for the classes of ``todo``; also say which are solved.

    A few steps for all classes together suffice where there are many more rows than features. The
    bound on them keeps this at a fraction of the price of factorising a class's Hessian.
    """
    direction = torch.zeros_like(gradient)
    residual = -gradient * todo
    goal = 0.01 * residual.norm(dim=0)
    z = residual / scale
    p = z
    rz = (residual * z).sum(0)
    for _ in range(len(gradient) // 16):
        running = todo & (residual.norm(dim=0) > goal)
        if not bool(running.any()):
            break
        hp = p + 2 * cost * (x.T @ (active * (x @ p)))
        alpha = torch.where(running, rz / (p * hp).sum(0), 0.0)
        direction = direction + alpha * p
        residual = residual - alpha * hp
        z = residual / scale
        rz_next = (residual * z).sum(0)
        p = z + torch.where(running, rz_next / rz, 0.0) * p
        rz = rz_next
    return direction, todo & (residual.norm(dim=0) <= goal)


def _solve_exactly(rows: Tensor, right: Tensor, cost: float) -> Tensor:
    """Solve ``(I + 2 C R' R) d = right`` by Cholesky, in the smaller of the two dimensions."""
    if len(rows) >= rows.shape[1]:
        hessian = (2 * cost) * (rows.T @ rows)
        hessian.diagonal().add_(1)
        return torch.cholesky_solve(right, torch.linalg.cholesky(hessian))
    kernel = rows @ rows.T
    kernel.diagonal().add_(1 / (2 * cost))
    inner = torch.cholesky_solve(rows @ right, torch.linalg.cholesky(kernel))
    return right - rows.T @ inner
