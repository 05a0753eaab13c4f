"""The joint sampler: every law of its draws, for any number of segments and frames."""

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
from vclr_lightning.core.types import Draw
from vclr_lightning.data.sampling.frame_indices import segment_bounds
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler

samplers = st.builds(
    TupleSampler,
    num_segments=st.integers(1, 9),
    frames_per_clip=st.integers(1, 9),
    stride=st.integers(1, 4),
    draws=st.sampled_from(["without_replacement", "independent"]),
    segments=st.sampled_from(["exact", "floor"]),
    exclude_reversal=st.booleans(),
)
seeds = st.integers(0, 2**32)


def draw(sampler: TupleSampler, n: int, seed: int) -> Draw:
    return sampler(n, np.random.default_rng(seed))


@given(sampler=samplers, n=st.integers(1, 400), seed=seeds)
def test_views_have_their_shapes_and_exist_in_the_video(
    sampler: TupleSampler, n: int, seed: int
) -> None:
    drawn = draw(sampler, n, seed)
    assert drawn.frame_indices.keys() == sampler.views.keys()
    for name, spec in sampler.views.items():
        indices = drawn.frame_indices[name]
        assert indices.dtype == np.int64
        assert indices.shape == (spec.clips, spec.frames)
        assert ((indices >= 0) & (indices < n)).all()
        steps = np.diff(indices, axis=1)
        assert ((steps == sampler.stride) | (indices[:, 1:] == n - 1)).all()


@given(sampler=samplers, n=st.integers(1, 400), seed=seeds)
def test_tuples_take_one_clip_from_each_segment(sampler: TupleSampler, n: int, seed: int) -> None:
    drawn = draw(sampler, n, seed)
    bounds = segment_bounds(n, sampler.num_segments, rule=sampler.segments)
    anchor, positive = (drawn.frame_indices[name][:, 0] for name in ("anchor", "positive"))
    for starts in (anchor, positive):
        assert ((bounds[:, 0] <= starts) & (starts < bounds[:, 1])).all()
        assert (np.diff(starts) >= 0).all()
    if sampler.draws == "without_replacement":
        assert ((anchor != positive) | (bounds[:, 1] - bounds[:, 0] == 1)).all()


@given(sampler=samplers, n=st.integers(1, 400), seed=seeds)
def test_anchor_frame_and_others(sampler: TupleSampler, n: int, seed: int) -> None:
    drawn = draw(sampler, n, seed)
    s = sampler.num_segments
    x1, *others = (int(drawn.rows[name].item()) for name in ("x1", "x2", "x3"))
    assert x1 in (0, s - 1)
    assert drawn.frame_indices["second"].tolist() == drawn.frame_indices["anchor"][[x1]].tolist()
    pool = np.concatenate([drawn.frame_indices["anchor"], drawn.frame_indices["extra"]])[:, 0]
    assert len(others) == 2
    assert len({x1, *others}) == 3
    assert pool[others[0]] <= pool[others[1]]
    if s >= 3:
        assert max(others) < s
        assert others[0] < others[1]
    else:
        # All that the tuple has, and all of the extra clips.
        assert sorted([x1, *others]) == [0, 1, 2]
        extra = drawn.frame_indices["extra"][:, 0].tolist()
        assert extra == sorted(extra)
        if n >= 2 * s + len(extra):
            used = {*drawn.frame_indices["anchor"][:, 0], *drawn.frame_indices["positive"][:, 0]}
            assert not used & set(extra)


@given(sampler=samplers, n=st.integers(1, 400), seed=seeds)
def test_order_and_label_agree(sampler: TupleSampler, n: int, seed: int) -> None:
    targets = draw(sampler, n, seed).targets
    identity = list(range(sampler.num_segments))
    orders = [targets[name].tolist() for name in ("anchor_order", "positive_order")]
    shuffled = [order != identity for order in orders]
    assert targets["shuffled"].shape == ()
    assert int(targets["shuffled"]) == shuffled[0] + 2 * shuffled[1]
    for order in orders:
        assert sorted(order) == identity
        if sampler.num_segments >= 3 and sampler.exclude_reversal:
            assert order != identity[::-1]
    if sampler.num_segments == 1:
        assert int(targets["shuffled"]) == 0


def test_chances_at_three_segments() -> None:
    """As the released code draws them: coins for both orders and for the anchor frame."""
    sampler, rng = TupleSampler(), np.random.default_rng(11)
    orders: Counter[Any] = Counter()
    labels: Counter[Any] = Counter()
    anchors: Counter[Any] = Counter()
    for _ in range(2000):
        drawn = sampler(300, rng)
        labels[int(drawn.targets["shuffled"])] += 1
        anchors[tuple(int(drawn.rows[name].item()) for name in ("x1", "x2", "x3"))] += 1
        for name in ("anchor_order", "positive_order"):
            orders[tuple(drawn.targets[name].tolist())] += 1
    assert set(anchors) == {(0, 1, 2), (2, 0, 1)}
    assert chisquare(list(anchors.values())).pvalue > 1e-4
    assert set(labels) == {0, 1, 2, 3}
    assert chisquare(list(labels.values())).pvalue > 1e-4
    expected = {(0, 1, 2): 2000, (0, 2, 1): 500, (1, 0, 2): 500, (1, 2, 0): 500, (2, 0, 1): 500}
    assert orders.keys() == expected.keys()
    assert chisquare([orders[key] for key in expected], list(expected.values())).pvalue > 1e-4


def test_others_are_uniform_pairs_of_the_rest() -> None:
    sampler, rng = TupleSampler(num_segments=5), np.random.default_rng(12)
    pairs: Counter[Any] = Counter()
    for _ in range(2000):
        rows = sampler(100, rng).rows
        x1, *others = (int(rows[name].item()) for name in ("x1", "x2", "x3"))
        rest = [i for i in range(5) if i != x1]
        pairs[(x1, *(rest.index(i) for i in others))] += 1
    expected = [(x1, *pair) for x1 in (0, 4) for pair in itertools.combinations(range(4), 2)]
    assert sorted(pairs) == sorted(expected)
    assert chisquare([pairs[key] for key in expected]).pvalue > 1e-4


@pytest.mark.parametrize("s", [1, 2])
def test_extra_frames_are_uniform_over_unused_frames(s: int) -> None:
    sampler, rng = TupleSampler(num_segments=s), np.random.default_rng(13)
    seen: Counter[Any] = Counter()
    for _ in range(1500):
        drawn = sampler(12, rng)
        used = {*drawn.frame_indices["anchor"].ravel(), *drawn.frame_indices["positive"].ravel()}
        unused = [index for index in range(12) if index not in used]
        for index in drawn.frame_indices["extra"].ravel():
            seen[unused.index(index)] += 1
    assert len(seen) == 12 - 2 * s
    assert chisquare(list(seen.values())).pvalue > 1e-4


def test_one_frame_is_enough() -> None:
    for s in range(1, 8):
        drawn = TupleSampler(num_segments=s, frames_per_clip=4)(1, np.random.default_rng(0))
        assert all((indices == 0).all() for indices in drawn.frame_indices.values())


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"num_segments": 0}, "num_segments=0 must be at least 1"),
        ({"frames_per_clip": 0}, "frames_per_clip=0"),
        ({"stride": -1}, "stride=-1"),
        ({"draws": "both"}, "draws='both' is unknown; take without_replacement or independent"),
        ({"segments": "round"}, "segments='round' is unknown; take exact or floor"),
    ],
)
def test_wrong_values_are_named(given_values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TupleSampler(**given_values)


def test_samplers_compare_and_travel() -> None:
    sampler = TupleSampler(num_segments=2, stride=3)
    assert pickle.loads(pickle.dumps(sampler)) == sampler != TupleSampler(num_segments=2)
