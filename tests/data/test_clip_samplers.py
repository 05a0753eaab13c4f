"""Samplers of clips: CoCLR's pairs, CVRL's intervals, paces, and two rates over one span."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling import (
    ClipPairSampler,
    IntervalSampler,
    PaceSampler,
    TwoRateSampler,
)
from vclr_lightning.data.sampling.clip_sampler import ClipSampler

FIGURES = json.loads((Path(__file__).parents[1] / "reference" / "g15_clip_nce.json").read_text())
SAMPLERS: list[type[Any]] = [ClipPairSampler, IntervalSampler, PaceSampler, TwoRateSampler]


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _p(counts: Counter[Any], law: dict[Any, float]) -> float:
    """How well counts fit a law, all of whose values they must have and no others."""
    assert set(counts) == set(law)
    assert sum(law.values()) == pytest.approx(1)
    total = counts.total()
    observed, expected = zip(*((counts[k], total * p) for k, p in law.items()), strict=True)
    return float(chisquare(observed, expected).pvalue) if len(law) > 1 else 1.0


@given(
    kind=st.sampled_from(SAMPLERS),
    frames=st.integers(1, 9),
    stride=st.integers(1, 5),
    n=st.integers(1, 80),
    seed=st.integers(0, 2**32),
)
def test_draws_have_the_declared_shapes_and_lie_within_the_video(
    kind: type[Any], frames: int, stride: int, n: int, seed: int
) -> None:
    options = {"alpha": 2, "stride": 2 * stride} if kind is TwoRateSampler else {}
    sampler = kind(**{"frames_per_clip": frames, "stride": stride} | options)
    drawn = sampler(n, _rng(seed))
    assert drawn.frame_indices.keys() == sampler.views.keys()
    for name, spec in sampler.views.items():
        indices = drawn.frame_indices[name]
        assert indices.shape == (spec.clips, spec.frames)
        assert indices.dtype == np.int64
        assert 0 <= indices.min() <= indices.max() < n
    assert set(drawn.targets) == set(getattr(sampler, "targets", ()))
    again = pickle.loads(pickle.dumps(sampler))(n, _rng(seed))
    for name, indices in drawn.frame_indices.items():
        assert np.array_equal(indices, again.frame_indices[name])


@pytest.mark.parametrize("n", FIGURES["sampling"]["train_short"])
def test_short_videos_are_padded_in_front_as_coclr_does(n: str) -> None:
    drawn = ClipPairSampler(frames_per_clip=32)(int(n), _rng()).frame_indices
    for view in ("query", "key"):
        assert drawn[view].tolist() == [FIGURES["sampling"]["train_short"][n]]


@pytest.mark.parametrize("n", FIGURES["sampling"]["train_start_range"])
def test_starts_of_coclr(n: str) -> None:
    first, last = FIGURES["sampling"]["train_start_range"][n]
    sampler, rng = ClipPairSampler(frames_per_clip=32), _rng()
    starts: Counter[int] = Counter()
    for _ in range(60 * (last - first + 1)):
        for view in ("query", "key"):
            (clip,) = sampler(int(n), rng).frame_indices[view].tolist()
            assert clip == list(range(clip[0], clip[0] + 32))
            starts[clip[0]] += 1
    every = range(first, last + 1)
    assert _p(starts, dict.fromkeys(every, 1 / len(every))) > 1e-4


def test_the_two_clips_of_coclr_are_independent() -> None:
    sampler, rng = ClipPairSampler(frames_per_clip=4, stride=2), _rng()
    pairs = Counter(
        tuple(int(clip[0, 0]) for clip in sampler(12, rng).frame_indices.values())
        for _ in range(4000)
    )
    law = {(a, b): 1 / 16 for a in range(4) for b in range(4)}
    assert _p(pairs, law) > 1e-4


def _interval_law(possible: int) -> dict[tuple[int, int], float]:
    """P(first start, second start): CVRL's law of the distance, then the place, then the coin."""
    law: Counter[tuple[int, int]] = Counter()
    for d in range(possible):
        chance = (2 * (possible - d) - 1) / possible**2
        for start in range(possible - d):
            for pair in ((start, start + d), (start + d, start)):
                law[pair] += chance / (possible - d) / 2  # type: ignore[assignment]
    return dict(law)


@pytest.mark.parametrize(("n", "stride", "possible"), [(10, 2, 6), (31, 15, 1), (9, 3, 3)])
def test_intervals_between_starts_fall_linearly(n: int, stride: int, possible: int) -> None:
    sampler, rng = IntervalSampler(frames_per_clip=3, stride=stride), _rng()
    seen: Counter[tuple[int, int]] = Counter()
    for _ in range(12000):
        drawn = sampler(n, rng).frame_indices
        for clip in drawn.values():
            assert np.diff(clip[0]).tolist() == [stride] * 2
        seen[int(drawn["clip1"][0, 0]), int(drawn["clip2"][0, 0])] += 1
    law = _interval_law(possible)
    assert _p(seen, law) > 1e-4


def test_clips_of_a_short_video_wrap_around_in_cvrl() -> None:
    sampler, rng = IntervalSampler(frames_per_clip=16, stride=2), _rng()
    for n in (1, 7, 30):
        pairs: Counter[tuple[int, int]] = Counter()
        for _ in range(40 * n * n):
            drawn = sampler(n, rng).frame_indices
            for clip in drawn.values():
                assert clip[0].tolist() == [(clip[0, 0] + 2 * k) % n for k in range(16)]
            pairs[int(drawn["clip1"][0, 0]), int(drawn["clip2"][0, 0])] += 1
        if n < 30:
            law = {(a, b): 1 / n**2 for a in range(n) for b in range(n)}
            assert _p(pairs, law) > 1e-4
    # With one frame more there is one start.
    exact = sampler(31, rng).frame_indices
    assert exact["clip1"].tolist() == exact["clip2"].tolist() == [list(range(0, 31, 2))]


def _paced(n: int, start: int, pace: int, frames: int) -> list[int]:
    """The released code's loop, in words: beyond the end it goes on at the first frame."""
    found, at = [], start
    for _ in range(frames):
        found.append(at)
        at = at + pace if at + pace < n else 0
    return found


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("stride", [1, 2])
def test_paces_and_their_restart_at_the_first_frame(n: int, stride: int) -> None:
    sampler, rng = PaceSampler(frames_per_clip=16, stride=stride), _rng()
    seen: Counter[tuple[int, int]] = Counter()
    for _ in range(4 * n * 60):
        drawn = sampler(n, rng)
        (clip,) = drawn.frame_indices["clip"].tolist()
        label = int(drawn.targets["pace"])
        assert clip == _paced(n, clip[0], stride * (label + 1), 16)
        seen[clip[0], label] += 1
    law = {(start, label): 1 / (4 * n) for start in range(n) for label in range(4)}
    assert _p(seen, law) > 1e-4


def test_two_rates_cover_one_span() -> None:
    sampler, rng = TwoRateSampler(frames_per_clip=8, alpha=4, stride=8), _rng()
    assert {name: spec.frames for name, spec in sampler.views.items()} == {"slow": 8, "fast": 32}
    starts: Counter[int] = Counter()
    for _ in range(3000):
        drawn = sampler(70, rng).frame_indices
        slow, fast = drawn["slow"][0], drawn["fast"][0]
        assert np.diff(fast).tolist() == [2] * 31
        assert np.diff(slow).tolist() == [8] * 7
        assert slow.tolist() == fast[::4].tolist()
        starts[int(fast[0])] += 1
    assert _p(starts, dict.fromkeys(range(8), 1 / 8)) > 1e-4
    short = sampler(5, rng).frame_indices
    assert short["fast"][0].tolist() == [0, 2, *[4] * 30]
    assert short["slow"][0].tolist() == [0, *[4] * 7]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("fps", [12.0, 15.0, 60.0])
def test_clips_at_a_rate_span_the_same_time_in_any_video(kind: type[Any], fps: float) -> None:
    """Frames are those on screen every 1 / rate seconds from the first one on."""
    sampler = kind(frames_per_clip=4, rate=12.0)
    n = int(8 * fps)
    times = 3.0 + np.arange(n) / fps
    assert sampler.needs_times
    firsts = set()
    for seed in range(150):
        drawn = sampler(n, _rng(seed), times=times)
        step = 1 + int(drawn.targets.get("pace", 0))
        for name, (clip,) in drawn.frame_indices.items():
            firsts.add(int(clip[0]))
            apart = step / (48.0 if name == "fast" else 12.0)
            gaps = np.diff(times[clip])
            whole = gaps[gaps >= 0]  # without a restart of the pace
            assert (np.abs(whole - apart) <= 1 / fps + 1e-9).all()
    if fps == 60 and kind is not TwoRateSampler:
        assert len({first % 5 for first in firsts}) == 5  # every frame can be a first one


def test_times_that_are_not_even() -> None:
    times = np.array([0.0, 0.05, 0.5, 0.55, 0.6, 1.0, 1.5, 1.55])
    shown = set()
    for seed in range(40):
        frames, stride = ClipSampler(rate=4).timeline(8, _rng(seed), times)
        assert stride == 1
        begun = _rng(seed).random() / 4
        expected = []
        at = begun
        while at <= 1.55:
            expected.append(max(i for i in range(8) if times[i] <= at))
            at += 0.25
        assert frames.tolist() == expected
        shown.update(expected)
    assert shown >= {0, 1, 2, 4, 5, 6}
    alone: NDArray[np.float64] = np.zeros(1)
    assert ClipSampler(rate=4).timeline(1, _rng(), alone)[0].tolist() == [0]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_mistakes(kind: type[Any]) -> None:
    for wrong in ({"frames_per_clip": 0}, {"stride": 0}, {"rate": 0}, {"min_frames": 0}):
        with pytest.raises(UserError, match=f"^{next(iter(wrong))}="):
            kind(**wrong)
    with pytest.raises(UserError, match="needs times="):
        kind(rate=5)(9, _rng())
    assert not kind().needs_times
    with pytest.raises(UserError, match="stride=6 of the slow clip must be a multiple of alpha=4"):
        TwoRateSampler(stride=6)
    with pytest.raises(UserError, match="alpha=0"):
        TwoRateSampler(alpha=0)
    with pytest.raises(UserError, match="paces=1"):
        PaceSampler(paces=1)
