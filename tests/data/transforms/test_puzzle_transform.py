"""Pieces of a video whose pixels say where they come from."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import PuzzleTransform

SIDE, LENGTH = 64, 3


def video() -> list[NDArray[np.uint8]]:
    """Red says the column, green the row, blue the block: each of two or four values."""
    frames = []
    for block in range(4):
        frame = np.zeros((SIDE, SIDE, 3), np.uint8)
        frame[:, SIDE // 2 :, 0] = 100
        frame[SIDE // 2 :, :, 1] = 100
        frame[:, :, 2] = 50 * block
        frames += [frame] * LENGTH
    return frames


def solved(transform: Any, seed: int) -> tuple[list[tuple[int, int]], int]:
    """(cell, block) of each piece, and the label."""
    pieces, targets = transform(video(), np.random.default_rng(seed))
    assert pieces.shape == (3, 4 * LENGTH, transform.size, transform.size)
    found = []
    for piece in pieces.numpy().reshape(3, 4, LENGTH, -1).transpose(1, 0, 2, 3):
        values = [set(channel.ravel().tolist()) for channel in piece]
        assert all(len(value) == 1 for value in values)  # no piece crosses an edge
        right, lower, block = (value.pop() for value in values)
        found.append((right // 100 + 2 * (lower // 100), block // 50))
    return found, int(targets["permutation"])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_pieces_stand_in_the_order_of_the_label(flip: float) -> None:
    transform = PuzzleTransform(size=16, region=SIDE, flip_p=flip, channel_p=0)
    orders = list(itertools.permutations(range(4)))
    labels, kinds = Counter(), Counter()
    for seed in range(720):
        pieces, label = solved(transform, seed)
        cells, blocks = zip(*pieces, strict=True)
        in_time = len(set(cells)) == 1
        kinds[in_time] += 1
        labels[label] += 1
        if in_time:
            assert blocks == orders[label]
        else:
            assert len(set(blocks)) == 1
            # A mirrored region has what was on the right on the left.
            seen = [cell ^ 1 for cell in cells] if flip else list(cells)
            assert tuple(seen) == orders[label]
    assert chisquare([labels[i] for i in range(24)]).pvalue > 1e-3
    assert chisquare([kinds[True], kinds[False]]).pvalue > 1e-3


@pytest.mark.parametrize("axis", ["space", "time"])
def test_one_axis(axis: Any) -> None:
    transform = PuzzleTransform(size=8, region=SIDE, axis=axis, channel_p=0)
    others = set()
    for seed in range(40):
        cells, blocks = zip(*solved(transform, seed)[0], strict=True)
        assert len(set(blocks if axis == "space" else cells)) == 1
        others.add((blocks if axis == "space" else cells)[0])
    assert others == {0, 1, 2, 3}


def test_every_piece_is_cut_at_a_place_of_its_own() -> None:
    ramp = np.arange(SIDE, dtype=np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(0)), axis=2)
    transform = PuzzleTransform(size=16, region=SIDE, piece=0.5, axis="time", flip_p=0, channel_p=0)
    places = set()
    for seed in range(200):
        pieces, _ = transform([frame] * 4, np.random.default_rng(seed))
        corners = [(int(p[0, 0, 0]) % 32, int(p[1, 0, 0]) % 32) for p in pieces.transpose(0, 1)]
        places.update(corners)
        assert len(set(corners)) > 1
    rows, columns = zip(*places, strict=True)
    assert set(rows) == set(columns) == set(range(17))  # a piece of 16 px in a cell of 32 px


def test_a_channel_replaces_all_three() -> None:
    transform = PuzzleTransform(size=8, region=SIDE, channel_p=1)
    pieces, _ = transform(video(), np.random.default_rng(0))
    assert (pieces[0] == pieces[1]).all()
    assert (pieces[0] == pieces[2]).all()


def test_frames_that_are_smaller_than_the_region() -> None:
    transform = PuzzleTransform(size=16)
    frames = [np.zeros((9, 5, 3), np.uint8)] * 4
    assert transform(frames, np.random.default_rng(0))[0].shape == (3, 4, 16, 16)


def test_what_cannot_be() -> None:
    with pytest.raises(UserError, match="axis"):
        PuzzleTransform(axis="colour")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="piece"):
        PuzzleTransform(piece=0)
    with pytest.raises(UserError, match="sharing key"):
        PuzzleTransform()([np.zeros((9, 5, 3), np.uint8)] * 6, np.random.default_rng(0))
