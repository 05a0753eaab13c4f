"""The linear SVM against LIBLINEAR and its optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.svm import SVMFit, fit_linear_svm
from vclr_lightning.functional.svm_dual import solve_duals
from vclr_lightning.functional.svm_primal import PrincipalAxes


def problem(rows: int, columns: int, classes: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([rows, columns, classes])
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    centres = 0.3 * rng.standard_normal((classes, columns))
    x = np.maximum(centres[labels] + rng.standard_normal((rows, columns)), 0) * scale
    return torch.from_numpy(x), torch.from_numpy(labels)


def objective(x: Tensor, y: Tensor, weight: Tensor, cost: float) -> Tensor:
    sign = torch.where(y[:, None] == torch.arange(len(weight)), 1.0, -1.0).double()
    hinge = (1 - sign * (x.double() @ weight.double().T)).clamp(min=0)
    return 0.5 * weight.double().square().sum(1) + cost * hinge.square().sum(0)


SHAPES = [(80, 12, 6), (40, 120, 3), (90, 64, 2), (600, 96, 5)]


@pytest.mark.parametrize("cost", [1.0, 0.01, 20.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_liblinear(shape: tuple[int, int, int], cost: float) -> None:
    x, y = problem(*shape)
    fit = fit_linear_svm(x, y, num_classes=shape[2], cost=cost, tolerance=1e-10)
    theirs = LinearSVC(
        C=cost, loss="squared_hinge", dual=False, fit_intercept=False, tol=1e-7, max_iter=20000
    ).fit(x.numpy(), y.numpy())
    coefficients = theirs.coef_
    if shape[2] == 2:  # one machine for both classes there
        coefficients = np.concatenate([-coefficients, coefficients])
    weight = torch.from_numpy(coefficients)
    assert torch.allclose(fit.weight, weight, atol=1e-3 * float(weight.abs().max()))
    assert (fit.objective <= objective(x, y, weight, cost) * (1 + 1e-9)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_as_near_to_the_minimum_as_it_says(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, y = problem(*shape)
    best = fit_linear_svm(x, y, num_classes=shape[2], tolerance=1e-12).objective
    fit = fit_linear_svm(x.to(dtype), y, num_classes=shape[2], tolerance=1e-4)
    value = objective(x, y, fit.weight, 1.0)
    assert (value <= best * (1 + 1e-4)).all()
    assert (fit.gap <= 1.01e-4 * fit.objective).all()
    assert torch.allclose(fit.objective.double(), value, rtol=1e-3)


def test_classes_with_more_support_vectors_than_features_equal_liblinear() -> None:
    """Most rows lie inside the margin: no set of as many rows as features can hold them."""
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=5000)
    x = np.maximum(0.2 * rng.standard_normal((3, 30))[label] + rng.standard_normal((5000, 30)), 0)
    data = PrincipalAxes(torch.from_numpy(x))
    sign = torch.from_numpy(np.where(label == np.arange(3)[:, None], 1.0, -1.0))
    start = torch.zeros(3, 30, dtype=torch.float64)
    solved = solve_duals(data.x, sign, start, cost=1.0, tolerance=1e-4, limit=50)
    assert solved.rounds == 1
    assert torch.isinf(solved.gap).all()
    assert (solved.weight == start).all()
    assert "rows" not in vars(data)  # the copy is made when it is first needed
    fit = fit_linear_svm(data.x, torch.from_numpy(label), num_classes=3, tolerance=1e-10)
    theirs = LinearSVC(
        C=1.0, loss="squared_hinge", dual=False, fit_intercept=False, tol=1e-9, max_iter=20000
    ).fit(x, label)
    assert torch.allclose(fit.weight, torch.from_numpy(theirs.coef_), atol=1e-4)


@pytest.mark.parametrize("row", [0, 4095, 4096, 4999])
def test_a_row_that_is_not_finite_is_named_wherever_it_is(row: int) -> None:
    x = torch.ones(5000, 2)
    x[row, 1] = torch.inf
    with pytest.raises(UserError, match=f"row {row} of the features is not finite"):
        fit_linear_svm(x, torch.arange(5000) % 2, num_classes=2)


def test_gradient_vanishes() -> None:
    x, y = problem(60, 20, 4)
    weight = fit_linear_svm(x, y, num_classes=4, tolerance=1e-12).weight.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x, y, weight, 1.0).sum(), weight)
    assert gradient.abs().max() < 1e-4


def test_classes_do_not_touch_each_other() -> None:
    x, y = problem(100, 16, 7)
    together = fit_linear_svm(x, y, num_classes=7, tolerance=1e-10)
    apart = fit_linear_svm(x, y, num_classes=7, tolerance=1e-10, class_chunk=2)
    assert torch.allclose(together.weight, apart.weight, atol=1e-6)


def test_a_class_without_rows_is_fitted() -> None:
    x, y = problem(50, 8, 3)
    fit = fit_linear_svm(x, y, num_classes=5)
    assert fit.weight.shape == (5, 8)
    assert ((x @ fit.weight.T).argmax(1) < 3).all()


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1000.0])
def test_bears_features_of_any_scale(scale: float) -> None:
    x, y = problem(83, 40, 6, scale)
    fit = fit_linear_svm(x, y, num_classes=6)
    assert (fit.gap <= 1.01e-4 * fit.objective).all()


def test_constant_and_repeated_features() -> None:
    x, y = problem(60, 10, 3)
    x = torch.cat([x, x, torch.zeros(60, 3), torch.ones(60, 1)], dim=1)
    fit: SVMFit = fit_linear_svm(x, y, num_classes=3)
    assert torch.allclose(fit.weight[:, :10], fit.weight[:, 10:20], atol=1e-8)
    assert fit.weight[:, 20:23].abs().max() < 1e-12


def test_features_that_are_not_finite_are_refused() -> None:
    x, y = problem(30, 5, 3)
    x[3, 2] = float("nan")
    with pytest.raises(UserError, match="row 3 of the features is not finite"):
        fit_linear_svm(x, y, num_classes=3)
