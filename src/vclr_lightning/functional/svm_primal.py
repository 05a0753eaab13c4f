"""Truncated Newton for squared hinges: for classes with more support vectors than features."""

from __future__ import annotations

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.line_search import hinge_step


def newton(
    x: Tensor, sign: Tensor, start: Tensor, *, cost: float, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Minimise the primal problems of :func:`~vclr_lightning.functional.svm.fit_linear_svm`.

    Newton steps by conjugate gradients along the rows' principal axes, with an exact line search,
    batched over classes. The duality gap is half the squared gradient.

    Args:
        x: one row per sample.
        sign: +1 for a class's rows, -1 for others.
        start: weights to begin at.
        cost: C.
        tolerance: largest relative gap.
        limit: bound on steps.

    Shape:
        - x: ``(N, F)``; sign: ``(N, c)``; start: ``(c, F)``
        - returns: weight ``(c, F)``, objective and gap ``(c,)``, and the number of steps

    Raises:
        UserError: the gap cannot be reached in this dtype.
    """
    axes = _principal_axes(x)
    x, w = x @ axes, (start @ axes).T  # (N, r), (r, c): a nearly diagonal Hessian
    slack = 1 - sign * (x @ w)
    square = x.square()
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
        scale = 1 + 2 * cost * (square.T @ active)  # diagonal of the Hessian
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


def _principal_axes(x: Tensor) -> Tensor:
    """Orthonormal basis ``(F, min(N, F))`` of the rows' span, along which they do not correlate."""
    basis: Tensor | None = None
    if len(x) < x.shape[1]:
        basis = torch.linalg.qr(x.T).Q  # (F, N)
        x = x @ basis
    axes: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors
    return axes if basis is None else basis @ axes


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
