"""FAISS finds what the exact search finds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.faiss_search import faiss_neighbours
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours


def clustered(seed: int, rows: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((rows, 32)) + 2 * rng.integers(0, 2, (rows, 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_finds_the_same(dtype: torch.dtype) -> None:
    pytest.importorskip("faiss", reason="the optional faiss-cpu is not installed")
    queries, gallery = clustered(0, 50).to(dtype), clustered(1, 700).to(dtype)
    gallery[300:310] = 2 * gallery[5]  # ties go by position with both
    queries[0] = gallery[5]
    for k in (1, 20, 900):
        exact, found = cosine_neighbours(queries, gallery, k), faiss_neighbours(queries, gallery, k)
        assert (found[1] == exact[1]).all()
        torch.testing.assert_close(found[0], exact[0])
    assert exact[1][0, :11].tolist() == [5, *range(300, 310)]


@pytest.mark.parametrize("scale", [1e-30, 1e19])
def test_magnitude_does_not_matter(scale: float) -> None:
    pytest.importorskip("faiss", reason="the optional faiss-cpu is not installed")
    queries, gallery = clustered(0, 20).float(), clustered(1, 100).float()
    found = faiss_neighbours(scale * queries, scale * gallery, 9)
    assert (found[1] == cosine_neighbours(queries, gallery, 9)[1]).all()


def test_another_index_may_be_given() -> None:
    faiss = pytest.importorskip("faiss", reason="the optional faiss-cpu is not installed")
    queries, gallery = clustered(0, 20).float(), clustered(1, 300).float()
    index = faiss.IndexHNSWFlat(32, 16, faiss.METRIC_INNER_PRODUCT)
    _, position = faiss_neighbours(queries, gallery, 5, index=index)
    same = position == cosine_neighbours(queries, gallery, 5)[1]
    assert same.double().mean() > 0.8


def test_bad_features_are_refused() -> None:
    pytest.importorskip("faiss", reason="the optional faiss-cpu is not installed")
    bad = torch.full((1, 2), torch.nan)
    with pytest.raises(UserError, match="query features are not finite"):
        faiss_neighbours(bad, torch.ones(2, 2), 1)
    with pytest.raises(UserError, match="gallery is empty"):
        faiss_neighbours(bad, torch.ones(0, 2), 1)


def test_without_it_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        faiss_neighbours(torch.ones(1, 2), torch.ones(1, 2), 1)
