"""Linear support vector machine with squared hinge, all classes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.nearest_neighbours import full_precision
from vclr_lightning.functional.svm_dual import solve_duals
from vclr_lightning.functional.svm_primal import PrincipalAxes, newton

_ROWS = 4096  # checked at a time


@dataclass(frozen=True)
class SVMFit:
    """A fitted one-vs-rest SVM."""

    weight: Tensor  # (classes, F); scores are x @ weight.T
    objective: Tensor  # (classes,), value of each class's problem
    gap: Tensor  # (classes,), duality gap: a bound on the distance to the minimum
    iterations: int


def fit_linear_svm(
    features: Tensor,
    targets: Tensor,
    *,
    num_classes: int,
    cost: float = 1.0,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    max_iterations: int = 200,
    class_chunk: int = 16,
) -> SVMFit:
    r"""Fit the linear SVM of the paper's linear evaluation (Section 4.1 of the paper).

    For each class, with y = +1 for its rows and -1 for all others, minimises

    .. math:: \tfrac12 \|w\|^2 + C \sum_i \max(0, 1 - y_i\, w \cdot x_i)^2

    without a bias, which is LIBLINEAR's ``-s 2 -c C``. The solution depends only on the rows inside
    a class's margin, usually few: an active-set method solves exactly for some rows and adds those
    that the solution leaves inside the margin. A class with more such rows than features continues
    by truncated Newton steps. Stops when the duality gap is below ``tolerance`` times the
    objective, so the result is proven to be that close to the minimum. Computes in the dtype and on
    the device of ``features``; small systems in float64.

    Args:
        features: one row per sample; float64 where the gap is to be very small.
        targets: class of each row.
        num_classes: number of columns of the scores; a class may have no rows.
        cost: C.
        tolerance: largest relative gap.
        start: weights near the solution, such as those of a similar C: fewer rounds.
        max_iterations: bound on rounds, and on Newton steps.
        class_chunk: classes solved together; bounds memory.

    Shape:
        - features: ``(N, F)``; targets: ``(N,)`` in ``0 .. num_classes - 1``
        - start: ``(num_classes, F)``

    Raises:
        UserError: a feature is not finite, or the gap cannot be reached in the features' dtype.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0]], dtype=torch.float64)
        >>> fit = fit_linear_svm(x, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> (x @ fit.weight.T).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    _check_finite(features)
    features = features if features.dtype == torch.float64 else features.float()
    parts: list[SVMFit] = []
    try:
        with full_precision():
            if start is None:
                start = _least_squares(features, targets, num_classes, cost)
            start, data = start.to(features), PrincipalAxes(features)
            for first in range(0, num_classes, class_chunk):
                end = min(first + class_chunk, num_classes)
                classes = torch.arange(first, end, device=features.device)
                sign = torch.where(targets == classes[:, None], 1.0, -1.0).to(features.dtype)
                some = start[first:end]
                parts.append(_fit_chunk(data, sign, some, cost, tolerance, max_iterations))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise UserError(
            f"the linear SVM cannot be solved in {features.dtype} with C = {cost:g}; bring the "
            "features to mean 0 and variance 1, or take a smaller C"
        ) from error
    return SVMFit(
        weight=torch.cat([p.weight for p in parts]),
        objective=torch.cat([p.objective for p in parts]),
        gap=torch.cat([p.gap for p in parts]),
        iterations=max(p.iterations for p in parts),
    )


def _least_squares(x: Tensor, targets: Tensor, num_classes: int, cost: float) -> Tensor:
    """Approximate weights ``(classes, F)``, by which the first active rows are chosen."""
    n, f = x.shape
    gram = x.T @ x if n >= f else x @ x.T
    # Enough to stay positive definite through rounding.
    small = 1e-5 if x.dtype == torch.float32 else 1e-10
    gram.diagonal().add_(1 / (2 * cost) + small * gram.diagonal().sum())
    factor = torch.linalg.cholesky(gram)
    if n >= f:  # x.T @ y for all classes: no matrix of all rows and classes is needed
        own = x.new_zeros(num_classes, f).index_add_(0, targets, x)
        return torch.cholesky_solve((2 * own - x.sum(dim=0)).T, factor).T
    right = torch.full((n, num_classes), -1.0, dtype=x.dtype, device=x.device)
    right[torch.arange(n, device=x.device), targets] = 1
    return torch.cholesky_solve(right, factor).T @ x


def _check_finite(features: Tensor) -> None:
    for first, part in zip(
        range(0, len(features), _ROWS), torch.split(features, _ROWS), strict=True
    ):
        if len(bad := (~part.isfinite()).any(dim=1).nonzero()):
            raise UserError(
                f"row {first + int(bad[0, 0])} of the features is not finite; nothing can be "
                "fitted to it"
            )


def _fit_chunk(
    data: PrincipalAxes, sign: Tensor, weight: Tensor, cost: float, tolerance: float, limit: int
) -> SVMFit:
    solved = solve_duals(data.x, sign, weight, cost=cost, tolerance=tolerance, limit=limit)
    weight, objective, gap = solved.weight, solved.objective, solved.gap
    rest = gap > tolerance * (objective - gap)
    rounds = solved.rounds
    if bool(rest.any()):
        weight[rest], objective[rest], gap[rest], steps = newton(
            data, sign[rest].T, weight[rest], cost=cost, tolerance=tolerance, limit=limit
        )
        rounds += steps
    return SVMFit(weight, objective, gap, rounds)
