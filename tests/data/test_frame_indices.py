"""Segments, draws, clips and evaluation frames: the laws they keep, and the released figures."""

from __future__ import annotations

import json
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from vclr_lightning.data.sampling.evaluation_frames import evaluation_indices
from vclr_lightning.data.sampling.frame_indices import (
    clip_indices,
    draw_two,
    draw_unused,
    possible_starts,
    segment_bounds,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "g7_sampling.json").read_text())

frames = st.integers(1, 5000)
segments = st.integers(1, 40)
seeds = st.integers(0, 2**32)
rules = st.sampled_from(["exact", "floor"])


@given(n=frames, s=segments)
def test_exact_segments_by_fractions(n: int, s: int) -> None:
    for i, (start, stop) in enumerate(segment_bounds(n, s).tolist()):
        first, last = floor(Fraction(i * n, s)), floor(Fraction((i + 1) * n, s)) - 1
        if last < first:
            first = last = floor(Fraction((2 * i + 1) * n, 2 * s))
        assert (start, stop) == (first, last + 1)


@given(n=frames, s=segments, rule=rules)
def test_segments_hold_frames_in_order_and_all_of_them(n: int, s: int, rule: str) -> None:
    bounds = segment_bounds(n, s, rule=rule)  # type: ignore[arg-type]
    assert (bounds[:, 0] < bounds[:, 1]).all()
    assert (np.diff(bounds, axis=0) >= 0).all()
    assert bounds.min() >= 0
    assert bounds.max() <= n
    if n >= s:
        covered = np.concatenate([np.arange(a, b) for a, b in bounds.tolist()])
        assert covered.tolist() == list(range(n))


@pytest.mark.parametrize("n", sorted(map(int, REFERENCE["segments"])))
def test_floor_segments_are_those_of_the_released_code(n: int) -> None:
    expected = np.array(REFERENCE["segments"][str(n)]["bounds_1based_inclusive"])
    bounds = segment_bounds(n, 3, rule="floor")
    assert (bounds[:, 0] + 1).tolist() == expected[:, 0].tolist()
    assert bounds[:, 1].tolist() == expected[:, 1].tolist()


@given(n=frames, s=segments, seed=seeds, rule=rules)
def test_two_draws_of_a_segment_lie_in_it_and_differ(n: int, s: int, seed: int, rule: str) -> None:
    bounds = segment_bounds(n, s, rule=rule)  # type: ignore[arg-type]
    one, two = draw_two(bounds, np.random.default_rng(seed))
    for drawn in (one, two):
        assert ((bounds[:, 0] <= drawn) & (drawn < bounds[:, 1])).all()
    assert ((one != two) == (bounds[:, 1] - bounds[:, 0] > 1)).all()


@pytest.mark.parametrize("rule", ["without_replacement", "independent"])
def test_pairs_of_draws_are_uniform(rule: str) -> None:
    rng = np.random.default_rng(3)
    bounds = np.tile([[10, 14]], (6000, 1))
    one, two = draw_two(bounds, rng, rule=rule) - 10  # type: ignore[arg-type]
    pairs = np.zeros((4, 4), int)
    np.add.at(pairs, (one, two), 1)
    if rule == "without_replacement":
        assert np.diag(pairs).sum() == 0
        pairs = pairs[~np.eye(4, dtype=bool)]
    assert chisquare(pairs.ravel()).pvalue > 1e-4


@given(n=st.integers(1, 30), count=st.integers(0, 4), seed=seeds, data=st.data())
def test_unused_frames_come_first(n: int, count: int, seed: int, data: st.DataObject) -> None:
    indices = st.lists(st.integers(0, n - 1), min_size=1, max_size=4)
    anchor, positive = (np.array(data.draw(indices)) for _ in range(2))
    drawn = draw_unused(n, (anchor, positive), count, np.random.default_rng(seed)).tolist()
    assert drawn == sorted(drawn)
    assert len(drawn) == count
    assert all(0 <= index < n for index in drawn)
    both = set(range(n)) - {*anchor.tolist(), *positive.tolist()}
    not_anchor = set(range(n)) - set(anchor.tolist())
    assert len(set(drawn) & both) == min(count, len(both))
    assert len(set(drawn) & not_anchor) == min(count, len(not_anchor))
    assert len(set(drawn)) == min(count, n)


def test_unused_frames_are_drawn_uniformly() -> None:
    rng = np.random.default_rng(1)
    used = (np.array([1]), np.array([4]))
    drawn = np.concatenate([draw_unused(7, used, 2, rng) for _ in range(2000)])
    counts = np.bincount(drawn, minlength=7)
    assert counts[[1, 4]].sum() == 0
    assert chisquare(counts[[0, 2, 3, 5, 6]]).pvalue > 1e-4


@given(n=frames, t=st.integers(1, 40), stride=st.integers(1, 8), data=st.data())
def test_clips_run_on_and_repeat_the_last_frame(
    n: int, t: int, stride: int, data: st.DataObject
) -> None:
    starts = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5))
    indices = clip_indices(np.array(starts), frames=t, stride=stride, num_frames=n)
    expected = [[min(s + k * stride, n - 1) for k in range(t)] for s in starts]
    assert indices.tolist() == expected


@given(n=frames, m=st.integers(1, 60))
def test_evaluation_frames_are_the_nearest_to_even_spacing(n: int, m: int) -> None:
    indices = evaluation_indices(n, m).tolist()
    if n < m:
        assert indices == list(range(n))
        return
    assert len(indices) == m
    exact = [Fraction(k * (n - 1), m - 1) if m > 1 else Fraction(0) for k in range(m)]
    for index, position in zip(indices, exact, strict=True):
        assert abs(index - position) <= Fraction(1, 2)


def test_halfway_between_two_evaluation_frames_the_even_one_is_taken() -> None:
    middle = {n: int(evaluation_indices(n, 3)[1]) for n in (2 * k for k in range(2, 200))}
    assert middle == {n: round((n - 1) / 2) for n in middle}
    assert [middle[n] for n in (4, 6, 8)] == [2, 2, 4]


@pytest.mark.parametrize("m", [25, 30])
def test_evaluation_frames_are_those_of_the_released_code(m: int) -> None:
    for n, files in REFERENCE[f"eval_indices_{m}"].items():
        assert (evaluation_indices(int(n), m, first=1) + 1).tolist() == files


def test_thirty_frames_do_not_depend_on_where_counting_begins() -> None:
    for n in range(1, 2000):
        assert evaluation_indices(n, 30).tolist() == evaluation_indices(n, 30, first=1).tolist()


@given(
    gaps=st.lists(st.sampled_from([0.01, 0.033, 0.034, 0.2]), min_size=1, max_size=40),
    rate=st.sampled_from([3.0, 10.0, 29.97, 60.0]),
    frames=st.integers(1, 6),
    data=st.data(),
)
def test_clips_at_a_rate_show_what_is_on_screen(
    gaps: list[float], rate: float, frames: int, data: st.DataObject
) -> None:
    times = np.round(np.cumsum(gaps), 3)
    start = data.draw(st.integers(0, len(times) - 1))
    found = clip_indices(
        np.array([start]), frames=frames, num_frames=len(times), rate=rate, times=times
    )
    for k, index in enumerate(found[0].tolist()):
        begun = [i for i, time in enumerate(times) if time <= times[start] + k / rate + 0.001]
        assert index == begun[-1]
    assert found[0, 0] == start or times[found[0, 0]] <= times[start] + 0.001


@given(n=st.integers(1, 60), steps=st.integers(0, 9), stride=st.integers(1, 4))
def test_possible_starts_leave_room(n: int, steps: int, stride: int) -> None:
    fitting = [start for start in range(n) if start + steps * stride < n]
    assert possible_starts(n, steps=steps, stride=stride) == max(1, len(fitting))
    times = np.arange(n) / 25
    at_rate = possible_starts(n, steps=steps, rate=25 / stride, times=times)
    assert at_rate == max(1, len(fitting))
