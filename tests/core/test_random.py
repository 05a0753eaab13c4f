"""Generators by key: the streams are those of NumPy's seeds, whatever is done to make them fast."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.random import numpy_generator, seed_of


@given(st.lists(st.one_of(st.integers(0, 2**70), st.text(max_size=8)), min_size=1, max_size=9))
def test_a_generator_is_that_of_its_keys(keys: list[int | str]) -> None:
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    theirs = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
    assert np.array_equal(numpy_generator(*keys).random(4), theirs.random(4))
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    assert seed_of(*keys) == int(state[0]) >> 1


def test_a_negative_key_is_none() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        numpy_generator(0, -1)
