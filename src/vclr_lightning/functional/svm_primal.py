"""Truncated Newton for the squared hinge: for classes with more support vectors than features."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError

_ROWS = 8192  # squared at a time


class PrincipalAxes:
    """Rows ``(N, F)``, and lazily a copy of them along their principal axes, uncorrelated."""

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
    data: PrincipalAxes, sign: Tensor, start: Tensor, *, cost: float, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Minimise the primal problems of :func:`~vclr_lightning.functional.svm.fit_linear_svm`.

    Newton steps by conjugate gradients along the rows' principal axes, with an exact line search,
    batched over classes. The duality gap is half the squared gradient.

    Shape:
        - sign: ``(N, c)``, +1 for a class's rows, -1 for others; start: ``(c, F)``, first weights
        - returns: weight ``(c, F)``, objective and gap ``(c,)``, and the number of steps

    Raises:
        UserError: the gap cannot be reached in this dtype.
    """
    axes, x = data.axes, data.rows  # a nearly diagonal Hessian
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
        move = sign * (x @ step)  # by how much the slack falls per unit of step
        length = hinge_step((w * step).sum(0), step.square().sum(0), slack, move, cost)
        w = w + length * step
        slack = slack - length * move
    raise UserError(
        f"the linear SVM is not within {tolerance:g} of its minimum after {limit} steps in "
        f"{x.dtype}; give the features as float64, or scale them down"
    )


def _squares(x: Tensor, active: Tensor) -> Tensor:
    """``x.square().T @ active``, without holding all squares: ``(r, c)``."""
    total = torch.zeros(x.shape[1], active.shape[1], dtype=x.dtype, device=x.device)
    for rows, own in zip(torch.split(x, _ROWS), torch.split(active, _ROWS), strict=True):
        total.addmm_(rows.square().T, own)
    return total


def _conjugate_gradients(
    x: Tensor, active: Tensor, scale: Tensor, gradient: Tensor, cost: float, todo: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve ``(I + 2 C X' D X) d = -g`` for the classes of ``todo``; also return which are solved.

    A few steps for all classes suffice where there are many more rows than features. Their number
    is bounded, so that this costs a fraction of factorising a class's Hessian.
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


def hinge_step(a: Tensor, b: Tensor, slack: Tensor, move: Tensor, cost: float) -> Tensor:
    """Line search along a step, for each class: 1-D Newton, safeguarded by a bracket.

    Minimises the primal objective, where a is the product of weights and step, b the squared norm
    of the step, and a row's slack 1 - y w.x falls by ``move`` per unit of step.

    Shape: - a, b: ``(c,)``; slack, move: ``(N, c)``; returns the step lengths ``(c,)``

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
