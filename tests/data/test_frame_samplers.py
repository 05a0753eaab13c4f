"""Samplers of frames for MoCo v2 and VINCE, and for SeCo: every law of their draws."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling import FramePairSampler

seeds = st.integers(0, 2**32)
pair_samplers = st.builds(
    FramePairSampler,
    candidates=st.integers(1, 6),
    pairs=st.integers(1, 5),
    frames_per_clip=st.integers(1, 5),
    stride=st.integers(1, 4),
)


@given(sampler=pair_samplers, n=st.integers(6, 200), seed=seeds)
def test_pairs_have_their_shapes_and_few_candidates(
    sampler: FramePairSampler, n: int, seed: int
) -> None:
    drawn = sampler(n, np.random.default_rng(seed)).frame_indices
    assert drawn.keys() == sampler.views.keys()
    starts = set()
    for name, spec in sampler.views.items():
        assert drawn[name].dtype == np.int64
        assert (
            drawn[name].shape
            == (spec.clips, spec.frames)
            == (
                sampler.pairs,
                sampler.frames_per_clip,
            )
        )
        assert ((drawn[name] >= 0) & (drawn[name] < n)).all()
        steps = np.diff(drawn[name], axis=1)
        assert ((steps == sampler.stride) | (drawn[name][:, 1:] == n - 1)).all()
        starts |= set(drawn[name][:, 0].tolist())
    parts = {start * sampler.candidates // n for start in starts}
    assert len(starts) <= sampler.candidates
    assert len(parts) <= len(starts)


def test_one_candidate_is_a_uniform_frame_twice() -> None:
    sampler, rng = FramePairSampler(), np.random.default_rng(5)
    seen: Counter[int] = Counter()
    for _ in range(3000):
        drawn = sampler(10, rng).frame_indices
        (query,), (key,) = drawn["queries"].ravel().tolist(), drawn["keys"].ravel().tolist()
        assert query == key
        seen[query] += 1
    assert chisquare([seen[i] for i in range(10)]).pvalue > 1e-4


def test_four_of_four_stored_frames_are_drawn_independently_with_replacement() -> None:
    """Same frame as query and key with chance 1/4; 3.6 distinct frames among the eight."""
    sampler, rng = FramePairSampler(candidates=4, pairs=4), np.random.default_rng(6)
    pairs: Counter[Any] = Counter()
    neighbours: Counter[Any] = Counter()
    distinct = 0
    for _ in range(2000):
        drawn = sampler(4, rng).frame_indices
        queries, keys = drawn["queries"].ravel().tolist(), drawn["keys"].ravel().tolist()
        pairs.update(zip(queries, keys, strict=True))
        neighbours[queries[0], queries[1]] += 1
        distinct += len({*queries, *keys})
    both = [(a, b) for a in range(4) for b in range(4)]
    assert chisquare([pairs[key] for key in both]).pvalue > 1e-4
    assert chisquare([neighbours[key] for key in both]).pvalue > 1e-4
    assert distinct / 2000 == pytest.approx(4 * (1 - 0.75**8), abs=0.05)


def test_candidates_are_uniform_in_their_parts_of_a_longer_video() -> None:
    sampler, rng = FramePairSampler(candidates=3, pairs=1), np.random.default_rng(7)
    seen: Counter[int] = Counter()
    for _ in range(3000):
        seen[int(sampler(12, rng).frame_indices["queries"][0, 0])] += 1
    assert chisquare([seen[i] for i in range(12)]).pvalue > 1e-4


@pytest.mark.parametrize("name", ["candidates", "pairs", "frames_per_clip", "stride"])
def test_wrong_values_are_named(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(UserError, match=f"{name}=0 must be at least 1"):
        FramePairSampler(**wrong)


def test_samplers_travel_and_say_how_short_a_video_may_be() -> None:
    sampler = FramePairSampler(candidates=4, pairs=4)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    assert sampler.min_frames == 4
