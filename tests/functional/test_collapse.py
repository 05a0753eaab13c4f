"""Measures of collapse, against the papers' formulas written with NumPy, and their laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.collapse import (
    alignment,
    dimension_spread,
    lidar,
    rankme,
    uniformity,
)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def perplexity(spectrum: np.ndarray) -> float:
    p = spectrum / np.abs(spectrum).sum() + 1e-7
    return float(np.exp(-sum(one * np.log(one) for one in p)))


@pytest.mark.parametrize(("n", "d"), [(30, 7), (7, 30)])
def test_rankme_is_that_of_the_singular_values(n: int, d: int) -> None:
    x = drawn(n, d) + 3  # not centred
    expected = perplexity(np.linalg.svd(x, compute_uv=False))
    assert float(rankme(torch.from_numpy(x))) == pytest.approx(expected, rel=1e-6)
    assert float(rankme(torch.from_numpy(x).float())) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("n", "q", "d"), [(40, 3, 6), (5, 2, 9)])
def test_lidar_is_that_of_the_whitened_covariance(n: int, q: int, d: int) -> None:
    x = drawn(n, 1, d) * np.linspace(1, 3, d) + 0.3 * drawn(n, q, d, seed=1)
    means = x.mean(axis=1)
    between = np.cov(means, rowvar=False)
    within = 1e-4 * np.eye(d)
    for sample, mean in zip(x, means, strict=True):
        within += sum(np.outer(v - mean, v - mean) for v in sample) / (n * (q - 1))
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = perplexity(np.linalg.eigvalsh(root @ between @ root))
    assert float(lidar(torch.from_numpy(x))) == pytest.approx(expected, rel=1e-5)


def test_alignment_and_uniformity_are_means_over_pairs() -> None:
    x = drawn(9, 3, 5)
    unit = x / np.linalg.norm(x, axis=2, keepdims=True)
    pairs = [np.sum((a - b) ** 2) for views in unit for a, b in itertools.combinations(views, 2)]
    assert float(alignment(torch.from_numpy(x))) == pytest.approx(np.mean(pairs))
    first = unit[:, 0]
    potentials = [np.exp(-2 * np.sum((a - b) ** 2)) for a, b in itertools.combinations(first, 2)]
    expected = np.log(np.mean(potentials))
    assert float(uniformity(torch.from_numpy(x[:, 0]))) == pytest.approx(expected)


def test_spread_of_each_dimension() -> None:
    x = drawn(2000, 8)
    spread = dimension_spread(torch.from_numpy(x))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert spread.tolist() == pytest.approx(list(unit.std(axis=0) * np.sqrt(8)))
    assert spread.mean() == pytest.approx(1, abs=0.02)  # even on the sphere
    x[:, 2:] = 0
    assert dimension_spread(torch.from_numpy(x))[2:].eq(0).all()


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 6), seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_laws_of_rankme(rank: int, seed: int, scale: float) -> None:
    """At most the rank; neither scale nor a rotation changes it; 1 after a collapse to a line."""
    x = torch.from_numpy(drawn(20, rank, seed=seed) @ drawn(rank, 8, seed=seed + 1))
    found = float(rankme(x))
    assert 1 <= found <= rank + 1e-3
    rotation = torch.linalg.qr(torch.from_numpy(drawn(8, 8, seed=seed + 2)))[0]
    assert float(rankme(scale * x @ rotation)) == pytest.approx(found, rel=1e-4)


def test_a_collapse_is_seen_by_each_measure() -> None:
    healthy = torch.from_numpy(drawn(64, 2, 16))
    collapsed = torch.ones(64, 2, 16) + 1e-6 * healthy
    assert rankme(healthy[:, 0]) > 10
    assert rankme(collapsed[:, 0]) < 1.01
    assert dimension_spread(collapsed[:, 0]).max() < 1e-4 < dimension_spread(healthy[:, 0]).min()
    assert uniformity(collapsed[:, 0]) > -1e-4 > uniformity(healthy[:, 0])
    zeros = torch.zeros(4, 2, 3)
    assert rankme(zeros[:, 0]) == pytest.approx(1, abs=1e-4)
    assert lidar(zeros) == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UserError, match="two views of each, not 5 and 1"):
        lidar(torch.zeros(5, 1, 3))
    with pytest.raises(UserError, match="needs two of each"):
        alignment(torch.zeros(5, 1, 3))
    with pytest.raises(UserError, match="two or more"):
        uniformity(torch.zeros(1, 3))
