"""Snippets of a video at a fixed number of positions, against interpolation point by point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.data.sampling.evaluation_frames import snippet_indices
from vclr_lightning.functional.boundary_matching import resample_snippets


@settings(max_examples=40, deadline=None)
@given(m=st.integers(2, 300), positions=st.integers(1, 120), seed=st.integers(0, 9))
def test_equals_interpolation_point_by_point(m: int, positions: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(m, 2))
    a = (m - 1 - 2e-4) / positions
    expected = np.empty((positions, 2))
    for i in range(positions):
        points = [1e-4 + (i + j / 3) * a for j in range(3)]
        for k in range(2):
            expected[i, k] = np.interp(points, np.arange(m), features[:, k]).mean()
    got = resample_snippets(torch.from_numpy(features), positions)
    assert np.allclose(got.numpy(), expected, atol=1e-9)


def test_one_snippet_is_repeated() -> None:
    assert torch.equal(
        resample_snippets(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]] * 100)
    )


@pytest.mark.parametrize("m", [2, 99, 100, 101])
def test_a_straight_line_stays_one(m: int) -> None:
    line = torch.linspace(0, 1, m, dtype=torch.float64)[:, None]
    steps = resample_snippets(line)[:, 0].diff()
    assert torch.allclose(steps, steps[:1].expand(99))


@given(frames=st.integers(1, 2000), every=st.integers(1, 40))
def test_snippets_are_the_middle_frames(frames: int, every: int) -> None:
    indices = snippet_indices(frames, every).tolist()
    expected = [r for r in range(frames) if r % every == every // 2]
    assert indices == (expected or [frames // 2])
