from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.manifest.selection import RowSelection, hold_out_groups

groups = st.lists(st.integers(0, 20), min_size=2, max_size=200).filter(lambda g: len(set(g)) > 1)


@given(groups, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_groups_stay_whole_and_the_share_is_met(groups: list[int], share: float, seed: int) -> None:
    codes = np.array(groups, dtype=np.int64)
    out = hold_out_groups(codes, share, seed)
    assert 0 < out.sum() < len(out)
    assert not set(codes[out]) & set(codes[~out])
    largest = np.bincount(codes).max()
    assert abs(out.sum() - share * len(codes)) <= max(largest, 1)
    assert np.array_equal(out, hold_out_groups(codes, share, seed))


def test_seeds_differ() -> None:
    codes = np.arange(1000)
    assert not np.array_equal(hold_out_groups(codes, 0.1, 0), hold_out_groups(codes, 0.1, 1))
    assert hold_out_groups(codes, 0.1, 0).sum() == 100


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_bad_share(share: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        hold_out_groups(np.arange(5), share, 0)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match="3 videos form 1 group"):
        hold_out_groups(np.zeros(3, dtype=np.int64), 0.5, 0)


def test_manifest_holds_out_within_its_view(tmp_path: Path) -> None:
    rows = [
        Row(path=f"{k}.mp4", group=str(k // 3), split="train" if k < 60 else "test")
        for k in range(90)
    ]
    file = write_manifest(tmp_path / "m.arrow", rows, Info(root=tmp_path))
    train = Manifest.load(file).split("train")
    rest, out = train.hold_out(0.2, seed=3)
    assert (len(rest), len(out)) == (48, 12)
    assert sorted([*rest.video_ids, *out.video_ids]) == sorted(train.video_ids)
    assert not set(rest.group_ids) & set(out.group_ids)
    again, _ = Manifest.load(file).split("train").hold_out(0.2, seed=3)
    assert again.fingerprint == rest.fingerprint != train.fingerprint


masks = npst.arrays(np.bool_, st.integers(0, 3000))


@given(masks)
def test_agrees_with_the_mask(mask: np.ndarray) -> None:
    rows = RowSelection(mask)
    expected = np.flatnonzero(mask)
    assert len(rows) == len(expected)
    assert np.array_equal(rows.indices(), expected)
    assert [rows[i] for i in range(0, len(rows), 7)] == expected[::7].tolist()


@given(masks)
def test_survives_pickling(mask: np.ndarray) -> None:
    again = pickle.loads(pickle.dumps(RowSelection(mask)))
    assert np.array_equal(again.indices(), np.flatnonzero(mask))


def test_a_quarter_of_a_million_rows_take_less_than_forty_kilobytes() -> None:
    assert len(pickle.dumps(RowSelection(np.arange(240_000) % 2 == 0))) < 40_000
