"""Shuffles: which are allowed, and with what chance each is drawn."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from vclr_lightning.functional.order import sample_shuffle

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "g7_sampling.json").read_text())


def allowed(size: int, *, exclude_reversal: bool) -> set[tuple[int, ...]]:
    orders = set(itertools.permutations(range(size)))
    if size > 1:
        orders -= {tuple(range(size))}
    if size > 2 and exclude_reversal:
        orders -= {tuple(reversed(range(size)))}
    return orders


@pytest.mark.parametrize("exclude_reversal", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_allowed_shuffle_is_equally_likely(size: int, exclude_reversal: bool) -> None:
    rng = np.random.default_rng(size)
    orders = allowed(size, exclude_reversal=exclude_reversal)
    draws = Counter(
        tuple(sample_shuffle(size, rng, exclude_reversal=exclude_reversal).tolist())
        for _ in range(400 * len(orders))
    )
    assert set(draws) == orders
    if len(orders) > 1:
        assert chisquare(list(draws.values())).pvalue > 1e-4


@given(size=st.integers(1, 12), seed=st.integers(0, 2**32), exclude=st.booleans())
def test_it_is_a_permutation_but_no_excluded_one(size: int, seed: int, exclude: bool) -> None:
    order = sample_shuffle(size, np.random.default_rng(seed), exclude_reversal=exclude).tolist()
    assert sorted(order) == list(range(size))
    assert size == 1 or order != list(range(size))
    assert size < 3 or not exclude or order != list(range(size))[::-1]


def test_allowed_shuffles_are_those_of_the_released_code() -> None:
    assert sorted(allowed(3, exclude_reversal=True)) == sorted(
        map(tuple, REFERENCE["shuffled_orders_3_segments"])
    )
    assert len(allowed(4, exclude_reversal=True)) == REFERENCE["num_shuffled_orders_4_segments"]
