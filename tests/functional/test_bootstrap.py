"""Bootstrap over groups: against enumeration, SciPy and simulation, and its laws."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.bootstrap import bootstrap_interval, paired_interval

GROUPS = ["a", "a", "a", "b", "c", "c", "d", "d"]
SCORES = [1, 0, 1, 1, 0, 0, 1, 0]
OTHERS = [0, 0, 1, 1, 1, 0, 0, 0]
CLASSES = ["x", "y", "y", "x", "x", "x", "y", "y"]


def enumerated(statistic: Callable[[list[int]], float], level: float) -> list[float]:
    """Quantiles over all 4^4 equally likely samples of four groups, taken as lists of rows."""
    rows = {name: [i for i, g in enumerate(GROUPS) if g == name] for name in sorted(set(GROUPS))}
    found = [
        statistic([row for name in drawn for row in rows[name]])
        for drawn in product(rows, repeat=len(rows))
    ]
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2]).tolist()


def macro(rows: list[int]) -> float:
    kinds = {CLASSES[row] for row in rows}
    return mean(mean(SCORES[row] for row in rows if CLASSES[row] == kind) for kind in kinds)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_equal_to_the_enumeration_of_all_samples(level: float) -> None:
    options = {"replicates": 40_000, "level": level}
    cases = {
        bootstrap_interval(SCORES, GROUPS, **options): lambda rows: mean(SCORES[r] for r in rows),
        bootstrap_interval(SCORES, GROUPS, classes=CLASSES, **options): macro,
        paired_interval(SCORES, OTHERS, GROUPS, **options): lambda rows: mean(
            SCORES[r] - OTHERS[r] for r in rows
        ),
    }
    for found, statistic in cases.items():
        assert found == pytest.approx(enumerated(statistic, level), abs=0.012)


def test_equal_to_scipy_on_sums_of_equal_groups() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((30, 4)).round(1)
    theirs = stats.bootstrap(
        (scores.mean(axis=1),), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    found = bootstrap_interval(scores.ravel(), np.repeat(np.arange(30), 4), replicates=20_000)
    assert found == pytest.approx(theirs, abs=0.003)


def test_it_covers_the_truth_where_resampling_videos_does_not() -> None:
    rng = np.random.default_rng(1)
    covered = {"groups": 0, "videos": 0}
    for seed in range(200):
        easy = rng.beta(1, 1, size=30)  # of each group; the expected score is 0.5
        scores = (rng.random((30, 6)) < easy[:, None]).astype(float).ravel()
        named = {"groups": np.repeat(np.arange(30), 6), "videos": np.arange(180)}
        for kind, groups in named.items():
            low, high = bootstrap_interval(scores, groups, replicates=300, seed=seed)
            covered[kind] += low <= 0.5 <= high
    assert 0.89 <= covered["groups"] / 200 <= 0.99
    assert covered["videos"] / 200 < 0.87


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=2, max_size=20
    ).filter(lambda rows: len({group for _, _, group in rows}) > 1),
    st.randoms(use_true_random=False),
)
def test_laws(rows: list[tuple[bool, bool, int]], rng: object) -> None:
    scores, others, groups = map(list, zip(*rows, strict=True))
    low, high = bootstrap_interval(scores, groups, replicates=50)
    assert 0 <= low <= high <= 1
    assert paired_interval(scores, scores, groups, replicates=50) == (0, 0)
    there = paired_interval(scores, others, groups, replicates=50)
    back = paired_interval(others, scores, groups, replicates=50)
    assert there == pytest.approx((-back[1], -back[0]))
    rng.shuffle(shuffled := list(rows))  # type: ignore[attr-defined]
    again, _, of = map(list, zip(*shuffled, strict=True))
    assert bootstrap_interval(again, of, replicates=50) == pytest.approx((low, high))


def test_no_other_generator_is_touched_and_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    many = np.arange(50) % 7 / 7, np.arange(50) // 2
    found = bootstrap_interval(*many)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr]
    assert found == bootstrap_interval(*many) != bootstrap_interval(*many, seed=1)
    monkeypatch.setattr("vclr_lightning.functional.bootstrap._DRAWS", 60)
    assert bootstrap_interval(*many) == found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([1, 0], [3, 3]), "two or more groups, and these are of 1"),
        (lambda: bootstrap_interval([1, 0, 1], [3, 4]), "3 scores of 2 videos"),
        (lambda: bootstrap_interval([1, 0], [3, 4], replicates=0), "replicates=0 must be"),
        (lambda: paired_interval([1, 0], [1, 0], [3, 4], level=1.0), r"level=1\.0 between"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
