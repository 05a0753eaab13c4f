"""Small machines against a solver that knows nothing of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from vclr_lightning.functional.svm_dual import solve_products


def by_nnls(products: np.ndarray, cost: float) -> np.ndarray:
    """With M = L L', a'Ma / 2 - sum a is |L'a - b|^2 / 2 up to a constant, where L b = 1."""
    matrix = products + np.eye(len(products)) / (2 * cost)
    lower = np.linalg.cholesky(matrix)
    return nnls(lower.T, np.linalg.solve(lower, np.ones(len(matrix))))[0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 12),
    st.floats(0.01, 100),
    st.integers(0, 10**6),
)
def test_equals_nonnegative_least_squares(rows: int, dim: int, cost: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, rows, dim)) + 1
    x *= rng.choice([-1.0, 1.0], (3, rows, 1))
    products = x @ x.swapaxes(1, 2)
    guess = torch.from_numpy(rng.random((3, rows)) < 0.5)
    found = solve_products(torch.from_numpy(products), torch.ones_like(guess), guess, cost=cost)
    for one, q in zip(found.numpy(), products, strict=True):
        wanted = by_nnls(q, cost)
        assert one == pytest.approx(wanted, abs=1e-7 * (1 + np.abs(wanted).max()))


def test_rows_that_are_not_allowed_stay_out() -> None:
    x = torch.randn(1, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    products = x @ x.mT
    allowed = torch.arange(9)[None] < 6
    found = solve_products(products, allowed, torch.ones_like(allowed), cost=2.0)
    assert found[0, 6:].tolist() == [0.0, 0.0, 0.0]
    alone = solve_products(products[:, :6, :6], allowed[:, :6], allowed[:, :6], cost=2.0)
    assert torch.allclose(found[:, :6], alone)
