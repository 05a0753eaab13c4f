"""Linear support vector machine with squared hinge, all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError


@dataclass(frozen=True)
class SVMFit:
    """A fitted one-vs-rest machine.

    Attributes:
        weight: ``(classes, F)``; scores are ``x @ weight.T``.
        objective: ``(classes,)`` value of each class's problem.
        gap: ``(classes,)`` duality gap: at most this much lies above the true minimum.
        iterations: Newton steps taken.
    """

    weight: Tensor
    objective: Tensor
    gap: Tensor
    iterations: int


def fit_linear_svm(
    features: Tensor,
    targets: Tensor,
    *,
    num_classes: int,
    cost: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
    class_chunk: int = 64,
) -> SVMFit:
    r"""Fit the linear machine of the paper's linear evaluation (Section 4.1 of the paper).

    For each class, with y = +1 for its rows and -1 for all others, minimises

    .. math:: \tfrac12 \|w\|^2 + C \sum_i \max(0, 1 - y_i\, w \cdot x_i)^2

    without a bias, which is LIBLINEAR's ``-s 2 -c C``. Truncated Newton steps with an exact line
    search, batched over classes as matrix products. Ends when the duality gap, which here is half
    the squared gradient, is below ``tolerance`` times the objective: the result is proven to be
    that close to the minimum. Computes in the dtype and on the device of ``features``.

    Args:
        features: one row per sample; float64 where the gap is to be very small.
        targets: class of each row.
        num_classes: number of columns of the scores; a class without rows is fitted as well.
        cost: C.
        tolerance: largest relative gap.
        max_iterations: bound on Newton steps per chunk.
        class_chunk: classes solved together; bounds memory at a few ``N * class_chunk`` numbers.

    Shape:
        - features: ``(N, F)``; targets: ``(N,)`` in ``0 .. num_classes - 1``

    Raises:
        UserError: a feature is not finite, or the gap cannot be reached in the features' dtype.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]], dtype=torch.float64)
        >>> fit = fit_linear_svm(x, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> (x @ fit.weight.T).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    finite = features.isfinite().all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0, 0])
        raise UserError(f"row {bad} of the features is not finite; nothing can be fitted to it")
    axes = _principal_axes(features)
    features = features @ axes  # (N, r): the same problem, with a nearly diagonal Hessian
    parts: list[SVMFit] = []
    for start in range(0, num_classes, class_chunk):
        classes = torch.arange(start, min(start + class_chunk, num_classes), device=features.device)
        sign = torch.where(targets[:, None] == classes, 1.0, -1.0).to(features.dtype)
        parts.append(_fit_chunk(features, sign, cost, tolerance, max_iterations))
    return SVMFit(
        weight=torch.cat([p.weight for p in parts]) @ axes.T,
        objective=torch.cat([p.objective for p in parts]),
        gap=torch.cat([p.gap for p in parts]),
        iterations=max(p.iterations for p in parts),
    )


def _principal_axes(x: Tensor) -> Tensor:
    """Orthonormal basis ``(F, min(N, F))`` of the rows' span, along which they do not correlate."""
    basis: Tensor | None = None
    if len(x) < x.shape[1]:
        basis = torch.linalg.qr(x.T).Q  # (F, N)
        x = x @ basis
    axes: Tensor = torch.linalg.eigh(x.T @ x).eigenvectors
    return axes if basis is None else basis @ axes


def _fit_chunk(x: Tensor, sign: Tensor, cost: float, tolerance: float, limit: int) -> SVMFit:
    """Newton steps for the classes of ``sign`` ``(N, c)``; columns are classes throughout."""
    w = x.new_zeros((x.shape[1], sign.shape[1]))  # (F, c)
    slack = torch.ones_like(sign)  # 1 - y w.x
    square = x.square()
    stubborn = torch.zeros(sign.shape[1], dtype=torch.bool, device=x.device)
    for iteration in range(limit + 1):
        hinge = slack.clamp(min=0)
        objective = 0.5 * w.square().sum(0) + cost * hinge.square().sum(0)
        gradient = w - 2 * cost * (x.T @ (sign * hinge))
        gap = 0.5 * gradient.square().sum(0)
        todo = gap > tolerance * (objective - gap)  # also where gap exceeds the objective
        if not bool(todo.any()):
            return SVMFit(w.T.contiguous(), objective, gap, iteration)
        active = (slack > 0).to(x.dtype)
        scale = 1 + 2 * cost * (square.T @ active)  # diagonal of the Hessian
        step, solved = _conjugate_gradients(x, active, scale, gradient, cost, todo & ~stubborn)
        stubborn |= todo & ~solved
        for index in (todo & stubborn).nonzero()[:, 0].tolist():
            rows = x[active[:, index] > 0]
            step[:, index] = _solve_exactly(rows, -gradient[:, index, None], cost)[:, 0]
        move = sign * (x @ step)  # y (x . step): the slack falls by this per unit of step
        length = _exact_step(w, step, slack, move, cost)
        w = w + length * step
        slack = slack - length * move
    raise UserError(
        f"the linear machine is not within {tolerance:g} of its minimum after {limit} steps in "
        f"{x.dtype}; give the features as float64, or scale them down"
    )


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


def _exact_step(w: Tensor, step: Tensor, slack: Tensor, move: Tensor, cost: float) -> Tensor:
    """Minimise each class along its direction: 1-D Newton, safeguarded by a bracket."""
    a, b = (w * step).sum(0), step.square().sum(0)

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
