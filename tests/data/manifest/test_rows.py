from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vclr_lightning.data.manifest.rows import Rows

masks = npst.arrays(np.bool_, st.integers(0, 3000))


@given(masks)
def test_agrees_with_the_mask(mask: np.ndarray) -> None:
    rows = Rows(mask)
    expected = np.flatnonzero(mask)
    assert len(rows) == len(expected)
    assert np.array_equal(rows.indices(), expected)
    assert [rows[i] for i in range(0, len(rows), 7)] == expected[::7].tolist()


@given(masks)
def test_survives_pickling(mask: np.ndarray) -> None:
    again = pickle.loads(pickle.dumps(Rows(mask)))
    assert np.array_equal(again.indices(), np.flatnonzero(mask))


def test_a_quarter_of_a_million_rows_take_less_than_forty_kilobytes() -> None:
    assert len(pickle.dumps(Rows(np.arange(240_000) % 2 == 0))) < 40_000
