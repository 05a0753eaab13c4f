"""Nearest neighbours against a full sort in NumPy, whatever the blocks and the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.nearest_neighbours import (
    cosine_neighbours,
    exact_similarities,
    full_precision,
    resolve_ties,
)
from vclr_lightning.functional.topk import decode_keys, encode_keys, merge_top, no_keys


def features(seed: int, rows: int, columns: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


def similarities(queries: torch.Tensor, gallery: torch.Tensor) -> NDArray[np.float64]:
    q, g = queries.double().numpy(), gallery.double().numpy()
    return (q @ g.T) / (np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)[None])


def ranking(queries: torch.Tensor, gallery: torch.Tensor) -> NDArray[np.int64]:
    return np.argsort(-similarities(queries, gallery).round(12), axis=1, kind="stable")


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 12),
    k=st.integers(1, 40),
    chunk=st.integers(1, 13),
    gallery_chunk=st.integers(1, 40),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_neighbours_are_those_of_a_full_sort_whatever_the_blocks(
    seed: int, rows: int, k: int, chunk: int, gallery_chunk: int, dtype: torch.dtype
) -> None:
    queries, gallery = features(seed, rows).to(dtype), features(seed + 1, 33).to(dtype)
    similarity, position = cosine_neighbours(
        queries, gallery, k, chunk=chunk, gallery_chunk=gallery_chunk
    )
    expected = ranking(queries, gallery)[:, :k]
    assert (position.numpy() == expected).all()
    values = np.take_along_axis(similarities(queries, gallery), expected, axis=1)
    np.testing.assert_allclose(similarity, values, atol=1e-6)
    assert (similarity.diff(dim=1) <= 0).all()
    assert similarity.abs().max() <= 1


def test_large_blocks_are_those_of_a_full_sort() -> None:
    """Past the first blocks only values above the k-th are looked at."""
    queries, gallery = features(0, 40, 16).float(), features(1, 3000, 16).float()
    expected = ranking(queries, gallery)[:, :50]
    for chunk, gallery_chunk in [(1024, 2048), (7, 301)]:
        found = cosine_neighbours(queries, gallery, 50, chunk=chunk, gallery_chunk=gallery_chunk)
        assert (found[1].numpy() == expected).all()
    nearest_last = np.argsort(similarities(queries, gallery)[0], kind="stable")
    _, found_last = cosine_neighbours(queries[:1], gallery[nearest_last], 50)
    assert found_last[0].tolist() == list(range(2999, 2949, -1))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), gallery_chunk=st.integers(1, 40))
def test_order_of_the_gallery_changes_no_neighbour(seed: int, gallery_chunk: int) -> None:
    queries, gallery = features(seed, 8).float(), features(seed + 1, 60).float()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(60))
    before = cosine_neighbours(queries, gallery, 9)
    after = cosine_neighbours(queries, gallery[order], 9, gallery_chunk=gallery_chunk)
    assert (order[after[1]] == before[1]).all()


@settings(deadline=None)
@given(seed=st.integers(0, 200), copies=st.integers(2, 8), gallery_chunk=st.integers(5, 99))
def test_copies_come_in_the_order_of_their_rows(seed: int, copies: int, gallery_chunk: int) -> None:
    """Scaled by powers of two they are the same to the last bit, whatever block they are in."""
    rng = np.random.default_rng(seed)
    base = features(seed, 20, 64).float()
    which = rng.permutation(np.repeat(np.arange(20), copies))
    scale = torch.from_numpy(2.0 ** rng.integers(-3, 4, len(which))).float()
    gallery = base[which] * scale[:, None]
    _, position = cosine_neighbours(base, gallery, copies, gallery_chunk=gallery_chunk, chunk=7)
    expected = [np.flatnonzero(which == i).tolist() for i in range(20)]
    assert position.tolist() == expected


def test_scale_does_not_matter() -> None:
    queries, gallery = features(0, 8), features(1, 8)
    scale = torch.rand(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    scaled = cosine_neighbours(queries * scale, gallery / scale, 3)[1]
    assert (scaled == cosine_neighbours(queries, gallery, 3)[1]).all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    power=st.floats(-36, 37),
    other=st.floats(-36, 37),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_magnitude_is_too_small_or_too_large(
    seed: int, power: float, other: float, dtype: torch.dtype
) -> None:
    """Squares and products of such rows are none in float32; some rows are of common size."""
    queries, gallery = features(seed, 6).to(dtype), features(seed + 1, 20).to(dtype)
    scaled = queries.clone(), gallery.clone()
    scaled[0][::2] *= 10.0**power
    scaled[1][::3] *= 10.0**other
    similarity, position = cosine_neighbours(*scaled, 5, chunk=4, gallery_chunk=7)
    expected = ranking(*scaled)[:, :5]
    assert (position.numpy() == expected).all()
    values = np.take_along_axis(similarities(*scaled), expected, axis=1)
    np.testing.assert_allclose(similarity, values, atol=1e-6)
    exact = exact_similarities(*scaled, position)
    np.testing.assert_allclose(exact, values, atol=1e-12)


def test_magnitudes_that_only_double_precision_holds() -> None:
    queries, gallery = features(0, 6), features(1, 20)
    expected = cosine_neighbours(queries, gallery, 5)
    for scale in (1e-200, 1e200):
        found = cosine_neighbours(scale * queries, scale * gallery, 5)
        assert (found[1] == expected[1]).all()
        torch.testing.assert_close(found[0], expected[0])


def test_zeros_are_similar_to_nothing() -> None:
    gallery = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    similarity, position = cosine_neighbours(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), gallery, 3)
    assert position.tolist() == [[1, 0, 2], [0, 1, 2]]
    assert similarity.tolist() == [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


def test_zeros_have_neighbours_of_other_groups_only() -> None:
    gallery, groups = torch.zeros(3, 2), torch.tensor([0, 0, 1])
    found = cosine_neighbours(gallery, gallery, 2, query_groups=groups, gallery_groups=groups)
    assert found[0].tolist() == [[0, -torch.inf], [0, -torch.inf], [0, 0]]
    assert found[1].tolist() == [[2, -1], [2, -1], [0, 1]]


@settings(deadline=None)
@given(seed=st.integers(0, 1000), gallery_chunk=st.integers(1, 20))
def test_own_group_is_no_neighbour(seed: int, gallery_chunk: int) -> None:
    rows = features(seed, 15)
    groups = torch.from_numpy(np.random.default_rng(seed).integers(4, size=15))
    similarity, position = cosine_neighbours(
        rows,
        rows,
        15,
        query_groups=groups,
        gallery_groups=groups,
        gallery_chunk=gallery_chunk,
        chunk=4,
    )
    order = ranking(rows, rows)
    for i in range(15):
        expected = [j for j in order[i] if groups[j] != groups[i]]
        assert position[i].tolist() == expected + [-1] * (15 - len(expected))
        assert (similarity[i].isfinite() == (position[i] >= 0)).all()


def test_mapped_features_of_half_precision(tmp_path: Path) -> None:
    file = str(tmp_path / "gallery.npy")
    np.save(file, features(1, 500, 32).half().numpy())
    mapped = torch.from_numpy(np.load(file, mmap_mode="c"))
    queries = features(0, 20, 32)
    _, position = cosine_neighbours(queries, mapped, 10, gallery_chunk=64)
    assert (position.numpy() == ranking(queries, mapped)[:, :10]).all()


def test_precision_of_a_training_run_is_not_taken_over() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", ["query", "gallery"])
def test_features_that_are_not_finite_are_refused(bad: float, side: str) -> None:
    sides = {"query": torch.ones(3, 2), "gallery": torch.ones(3, 2)}
    sides[side][1, 0] = bad
    with pytest.raises(UserError, match=f"1 rows of the {side} features are not finite"):
        cosine_neighbours(sides["query"], sides["gallery"], 1)


def test_nothing_to_look_among() -> None:
    with pytest.raises(UserError, match="gallery is empty"):
        cosine_neighbours(torch.ones(1, 2), torch.ones(0, 2), 1)


def test_errors_of_float32_are_settled() -> None:
    """Candidates come in a wrong order, with similarities that are off by a few 1e-6."""
    queries = torch.tensor([[1.0, 0.0, 0.0]])
    gallery = torch.tensor([[1.0, 1e-3, 0], [1.0, 0, 0], [0.0, 0, 1.0], [1.0, 0, 1e-3]])
    noisy = torch.tensor([[0.999999, 0.999998, 0.999997, 0.0]])
    similarity, position = resolve_ties(queries, gallery, noisy, torch.tensor([[3, 0, 1, 2]]), 3)
    assert position.tolist() == [[1, 0, 3]]
    assert similarity[0, 0] == 1


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
    st.integers(0, 2**32 - 30),
)
def test_keys_sort_by_value_and_then_by_column(values: list[float], first: int) -> None:
    x = torch.tensor(values, dtype=torch.float32) + 0.0  # of two zeros the negative one is less
    columns = torch.arange(first, first + len(values))
    keys = encode_keys(x, columns)
    back = decode_keys(keys)
    assert (back[0] == x).all()
    assert (back[1] == columns).all()
    order = sorted(range(len(values)), key=lambda i: (-float(x[i]), i))
    assert keys.argsort(descending=True).tolist() == order


@settings(deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_merging_keeps_the_largest(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-4, 4, (5, 30)).astype(np.float32)  # many ties
    best, start = no_keys(5, k), 0
    while start < 30:
        width = int(rng.integers(1, 12))
        best = merge_top(best, torch.from_numpy(values[:, start : start + width]), start)
        start += width
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    assert (decode_keys(best)[1].numpy() == order).all()


def test_features_that_still_want_a_gradient_are_compared() -> None:
    """Those of a network called without ``no_grad``."""
    rows = features(0, 9).float()
    found = cosine_neighbours(rows.clone().requires_grad_(), rows.clone().requires_grad_(), 3)
    assert all(map(torch.equal, found, cosine_neighbours(rows, rows, 3)))
    assert not found[0].requires_grad
