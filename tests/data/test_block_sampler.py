"""Blocks and clips of two speeds: every law of their draws."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling import BlockSampler, SpeedSampler

seeds = st.integers(0, 2**32)
blocks = st.builds(
    BlockSampler,
    blocks=st.integers(2, 4),
    frames_per_clip=st.integers(1, 5),
    stride=st.integers(1, 3),
    gap=st.integers(0, 3),
    spare=st.integers(0, 3),
    shuffle=st.sampled_from(["none", "all", "up_to_reversal"]),
    min_frames=st.sampled_from([None, 1]),
)


def draws(sampler: Any, n: int, count: int, **options: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [sampler(n, rng, **options) for _ in range(count)]


@given(sampler=blocks, more=st.integers(0, 50), seed=seeds)
def test_blocks_follow_each_other(sampler: BlockSampler, more: int, seed: int) -> None:
    n = BlockSampler(**{**vars(sampler), "min_frames": None}).min_frames + more  # type: ignore[operator]
    drawn = sampler(n, np.random.default_rng(seed))
    found = drawn.frame_indices["blocks"]
    spec = sampler.views["blocks"]
    assert found.shape == (spec.clips, spec.frames)
    assert found.dtype == np.int64
    assert set(drawn.targets) == set(sampler.targets)
    ordered = found[np.argsort(found[:, 0])]
    step = sampler.stride
    assert (np.diff(ordered, axis=1) == step).all()
    assert (np.diff(ordered[:, 0]) == (sampler.frames_per_clip + sampler.gap) * step).all()
    assert ordered[0, 0] >= 0
    assert ordered[-1, -1] <= n - 1 - sampler.spare
    if sampler.shuffle == "none":
        assert np.array_equal(ordered, found)


@given(sampler=blocks, n=st.integers(1, 20), seed=seeds)
def test_short_videos_repeat_their_last_frame(sampler: BlockSampler, n: int, seed: int) -> None:
    found = sampler(n, np.random.default_rng(seed)).frame_indices["blocks"]
    assert found.min() >= 0
    assert found.max() <= n - 1


def test_the_published_blocks_of_dpc() -> None:
    """8 x 5 frames at stride 3: rank s + 15 b + 3 t, s in 0..n - 121; 120 frames are dropped."""
    sampler = BlockSampler(spare=3)
    assert sampler.min_frames == 121
    starts = Counter()
    for drawn in draws(sampler, 125, 500):
        found = drawn.frame_indices["blocks"]
        s = int(found[0, 0])
        starts[s] += 1
        assert found.tolist() == [[s + 15 * b + 3 * t for t in range(5)] for b in range(8)]
    assert set(starts) == set(range(125 - 120))
    assert chisquare(list(starts.values())).pvalue > 1e-3
    assert {int(d.frame_indices["blocks"][0, 0]) for d in draws(sampler, 121, 20)} == {0}
    assert sampler.views["blocks"].share == "blocks"


def test_the_published_clips_of_vcop() -> None:
    """3 clips of 16 frames, 8 frames between: 64 frames; start 0..n - 64; orders as classes."""
    sampler = BlockSampler(blocks=3, frames_per_clip=16, stride=1, gap=8, shuffle="all", share=None)
    assert sampler.min_frames == 64
    assert sampler.targets == ("permutation",)
    orders = list(itertools.permutations(range(3)))
    labels, starts = Counter(), set()
    for drawn in draws(sampler, 66, 600):
        found = drawn.frame_indices["blocks"]
        first = int(found.min())
        starts.add(first)
        label = int(drawn.targets["permutation"])
        labels[label] += 1
        assert [(clip[0] - first) // 24 for clip in found] == list(orders[label])
    assert starts == {0, 1, 2}
    assert chisquare([labels[i] for i in range(6)]).pvalue > 1e-3


def test_an_order_and_its_reversal_are_one_class() -> None:
    sampler = BlockSampler(
        blocks=4, frames_per_clip=1, stride=1, gap=0, shuffle="up_to_reversal", share=None
    )
    seen: dict[int, Counter[tuple[int, ...]]] = {}
    for drawn in draws(sampler, 4, 2400):
        order = tuple(drawn.frame_indices["blocks"][:, 0].tolist())
        seen.setdefault(int(drawn.targets["permutation"]), Counter())[order] += 1
    assert sorted(seen) == list(range(12))
    for orders in seen.values():
        one, other = orders
        assert one == other[::-1]
    assert {order for orders in seen.values() for order in orders} == set(
        itertools.permutations(range(4))
    )
    assert chisquare([n for orders in seen.values() for n in orders.values()]).pvalue > 1e-3


def test_blocks_at_a_rate_span_the_same_time_at_any_frame_rate() -> None:
    sampler = BlockSampler(blocks=2, frames_per_clip=3, rate=5, gap=1, shuffle="none")
    assert sampler.needs_times
    assert not BlockSampler().needs_times
    for fps in (15.0, 60.0):
        times = np.arange(round(3 * fps)) / fps
        for drawn in draws(sampler, len(times), 20, times=times):
            found = drawn.frame_indices["blocks"]
            start = times[found[0, 0]]
            expected = start + np.array([[0, 1, 2], [4, 5, 6]]) / 5
            np.testing.assert_allclose(times[found], expected, atol=1e-6)
            assert start <= times[-1] - 6 / 5 + 1e-6


@given(n=st.integers(1, 300), seed=seeds)
def test_two_speeds(n: int, seed: int) -> None:
    sampler = SpeedSampler(frames_per_clip=8)
    drawn = sampler(n, np.random.default_rng(seed))
    slow, fast = drawn.frame_indices["clips"]
    assert slow.shape == fast.shape == (8,)
    assert drawn.targets["sped_up"].tolist() == [0, 1]
    for clip in (slow, fast):
        assert (np.diff(clip) >= 0).all()
        assert clip[0] >= 0
        assert clip[-1] <= n - 1
    if n > 250:  # nothing is repeated
        assert (np.diff(fast) > 0).all()
        if fast[-1] - fast[0] >= slow[-1] - slow[0]:
            assert fast[0] <= slow[0]
            assert slow[-1] <= fast[-1]


def test_factors_are_uniform_and_skips_random() -> None:
    sampler = SpeedSampler(frames_per_clip=65)
    spans = np.array(
        [
            [clip[-1] - clip[0] for clip in d.frame_indices["clips"]]
            for d in draws(sampler, 999, 600)
        ]
    )
    slow, fast = spans.T / 64
    assert slow.mean() == pytest.approx(1.1, abs=0.01)
    assert fast.mean() == pytest.approx(1.95, abs=0.03)
    assert slow.min() >= 1
    # Geometric gaps of mean f have variance f (f - 1); f itself varies uniformly.
    f = np.linspace(1.7, 2.2, 1001)
    assert fast.var() == pytest.approx((f * (f - 1)).mean() / 64 + f.var(), rel=0.2)
    regular = SpeedSampler(frames_per_clip=5, normal=(1, 1))
    assert {tuple(np.diff(d.frame_indices["clips"][0])) for d in draws(regular, 99, 9)} == {
        (1, 1, 1, 1)
    }


def test_speeds_at_a_rate() -> None:
    times = np.arange(400) / 40.0
    sampler = SpeedSampler(frames_per_clip=4, rate=10, normal=(1, 1))
    for drawn in draws(sampler, 400, 20, times=times):
        slow, fast = times[drawn.frame_indices["clips"]]
        np.testing.assert_allclose(np.diff(slow), 0.1)
        whole = np.diff(fast) / 0.1
        np.testing.assert_allclose(whole, whole.round(), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        (BlockSampler, {"blocks": 0}, "blocks"),
        (BlockSampler, {"gap": -1}, "gap"),
        (BlockSampler, {"shuffle": "some"}, "shuffle"),
        (BlockSampler, {"shuffle": "all", "blocks": 7}, "blocks=7"),
        (BlockSampler, {"rate": 0}, "rate"),
        (SpeedSampler, {"frames_per_clip": 0}, "frames_per_clip"),
        (SpeedSampler, {"normal": (0.5, 1)}, "normal"),
        (SpeedSampler, {"sped_up": (2, 1)}, "sped_up"),
    ],
)
def test_what_cannot_be(kind: Any, options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        kind(**options)


@pytest.mark.parametrize("sampler", [BlockSampler(shuffle="none"), SpeedSampler()])
def test_samplers_are_sent_to_workers(sampler: Any) -> None:
    assert pickle.loads(pickle.dumps(sampler)) == sampler
