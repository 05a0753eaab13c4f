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
from vclr_lightning.data.sampling import FramePairSampler, HalvesSampler

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


halves = st.builds(HalvesSampler, frames_per_clip=st.integers(1, 5), stride=st.integers(1, 4))


@given(sampler=halves, n=st.integers(2, 200), seed=seeds)
def test_the_anchor_is_of_one_half_and_the_others_of_the_other(
    sampler: HalvesSampler, n: int, seed: int
) -> None:
    drawn = sampler(n, np.random.default_rng(seed))
    assert drawn.frame_indices.keys() == sampler.views.keys()
    for name, spec in sampler.views.items():
        indices = drawn.frame_indices[name]
        assert indices.dtype == np.int64
        assert indices.shape == (spec.clips, spec.frames) == (1, sampler.frames_per_clip)
        assert ((np.diff(indices) == sampler.stride) | (indices[:, 1:] == n - 1)).all()
    x1, again, x2, x3 = (int(i[0, 0]) for i in drawn.frame_indices.values())
    assert x1 == again
    assert 0 <= x2 <= x3 < n
    assert drawn.targets.keys() == set(sampler.targets)
    assert drawn.targets["follows"].shape == ()
    # The first half has n // 2 frames, so of an odd number the second is the longer one.
    if int(drawn.targets["follows"]) == 0:
        assert x1 < n // 2 <= x2
    else:
        assert x3 < n // 2 <= x1


def test_chances_of_the_halves() -> None:
    """A fair coin; uniform frames; x2 and x3 with replacement, so equal with chance 1 / half."""
    sampler, rng = HalvesSampler(), np.random.default_rng(8)
    anchors: Counter[Any] = Counter()
    others: Counter[Any] = Counter()
    for _ in range(6000):
        drawn = sampler(7, rng)
        x1, x2, x3 = (int(drawn.frame_indices[name][0, 0]) for name in ("x1", "x2", "x3"))
        anchors[int(drawn.targets["follows"]), x1] += 1
        others[x2, x3] += 1
    first, second = range(3), range(3, 7)
    expected = {(0, i): 1000.0 for i in first} | {(1, i): 750.0 for i in second}
    assert anchors.keys() == expected.keys()
    assert chisquare([anchors[key] for key in expected], list(expected.values())).pvalue > 1e-4
    expected = {
        (a, b): 3000 * (1 if a == b else 2) / len(half) ** 2
        for half in (first, second)
        for a in half
        for b in half
        if a <= b
    }
    assert others.keys() == expected.keys()
    assert chisquare([others[key] for key in expected], list(expected.values())).pvalue > 1e-4


def test_one_frame_has_no_halves() -> None:
    assert HalvesSampler.min_frames == 2
    with pytest.raises(UserError, match="stride=0 must be at least 1"):
        HalvesSampler(stride=0)
    assert pickle.loads(pickle.dumps(HalvesSampler(stride=2))) == HalvesSampler(stride=2)


@pytest.mark.parametrize("kind", [FramePairSampler, HalvesSampler])
def test_clips_at_a_rate_follow_the_clock(kind: Any) -> None:
    """Frames of 0.1 s, but the middle one, which lasts a second."""
    times = np.concatenate([np.arange(10) * 0.1, 1.9 + np.arange(10) * 0.1])
    sampler = kind(frames_per_clip=3, rate=5.0)
    assert sampler.needs_times
    assert not kind(frames_per_clip=3).needs_times
    for seed in range(50):
        drawn = sampler(20, np.random.default_rng(seed), times=times)
        for indices in drawn.frame_indices.values():
            for clip in indices:
                wanted = times[clip[0]] + np.array([0, 0.2, 0.4])
                shown = [max(i for i in range(20) if times[i] <= t + 1e-6) for t in wanted]
                assert clip.tolist() == shown
