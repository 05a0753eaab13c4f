"""Copies are found among videos that look alike, and nothing else is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.data.doctor.examination import examine, thumbnails_of
from vclr_lightning.data.doctor.near_duplicates import connected, find_alike, near_pairs
from vclr_lightning.data.jobs import FileResult

UNKNOWN = np.nan


@given(st.integers(0, 1000), st.integers(2, 40))
def test_noisy_copies_are_found_and_other_videos_are_not(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    videos = rng.integers(0, 256, (count, 5, 64)).astype(np.float64)
    source = rng.integers(count)
    copy = rng.uniform(0.8, 1) * videos[source] + rng.normal(0, 2, (5, 64))
    all_of_them = np.concatenate([videos, copy[None]]).clip(0, 255).astype(np.uint8)
    found = find_alike(all_of_them, [None] * (count + 1), np.full(count + 1, UNKNOWN))
    assert [one.members for one in found] == [(source, count)]


def test_takes_in_front_of_one_background_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 256, 64)
    takes = np.repeat(np.repeat(background[None, None], 5, 1), 20, 0)
    for take in takes:  # something small at another place in each frame
        take[np.arange(5), rng.integers(64, size=5)] = 255 - take[np.arange(5), 0]
    assert not len(near_pairs(takes.astype(np.uint8), np.full(20, UNKNOWN)))


def test_still_videos_are_compared_by_their_picture() -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (4, 1, 64)), 5, 1).astype(np.uint8)
    still[3] = np.clip(still[1].astype(int) + rng.integers(-1, 2, (5, 64)), 0, 255)
    still[2] = 7  # of one colour: like every other one of those, so not compared
    flat = np.full((1, 5, 64), 200, np.uint8)
    stack = np.concatenate([still, flat])
    assert near_pairs(stack, np.full(5, UNKNOWN)).tolist() == [[1, 3]]


def test_equal_files_and_durations() -> None:
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 256, (4, 5, 64)).astype(np.uint8)
    videos[1] = videos[0]
    digests = ["a", None, "b", "b"]
    assert [tuple(one) for one in find_alike(videos, digests, np.full(4, UNKNOWN))] == [
        ((0, 1), False),
        ((2, 3), True),
    ]
    assert [one.members for one in find_alike(videos, digests, np.array([9.0, 20, 5, 5]))] == [
        (2, 3)
    ]
    assert find_alike(videos[:0], [], np.empty(0)) == []


def test_thousands_of_videos_take_seconds_even_if_many_are_the_same() -> None:
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 256, (6000, 5, 64)).astype(np.uint8)
    videos[5000:5500] = videos[:500]
    videos[2000:4000] = videos[2000]  # such as what a site shows for removed videos
    videos[4000:4300] = np.clip(videos[4000] + rng.normal(0, 2, (300, 5, 64)), 0, 255)
    begin = time.process_time()
    found = find_alike(videos, [None] * 6000, np.full(6000, UNKNOWN))
    assert sorted(len(one.members) for one in found) == [*[2] * 500, 300, 2000]
    assert time.process_time() - begin < 30


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_connected_nodes_are_those_of_a_search(pairs: list[tuple[int, int]]) -> None:
    found = connected(np.array(pairs, np.int64).reshape(-1, 2), 30)
    for start in range(30):
        seen, queue = {start}, [start]
        while queue:
            node = queue.pop()
            for pair in pairs:
                if node in pair:
                    queue += [other for other in pair if other not in seen]
                    seen |= set(pair)
        assert found[start] == min(seen)


def test_equal_thumbnails_of_other_lengths_are_told_apart() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 1, 64)), 5, 1).astype(np.uint8)
    found = find_alike(np.repeat(still, 4, 0), [None] * 4, np.array([9.0, 20, 9.1, UNKNOWN]))
    assert [one.members for one in found] == [(0, 1, 2, 3)]  # by the one of unknown length
    found = find_alike(np.repeat(still, 3, 0), [None] * 3, np.array([9.0, 20, 9.1]))
    assert [one.members for one in found] == [(0, 2)]


def test_real_videos(real_data: Path) -> None:
    """Re-encoded versions of one clip belong together; takes of one scene do not."""
    versions = sorted((real_data / "clips_derived").glob("soccer_[hmvtw]*"))
    takes = sorted((real_data / "ut_interaction").glob("*/*set1_seq1_*.avi"))[:6]
    takes = takes or sorted((real_data / "ut_interaction").glob("*/*.avi"))[:12]
    versions = [path for path in versions if "vertical" not in path.stem]
    files = [*versions, *takes]
    assert len(versions) >= 8 <= len(files)
    values = [
        examine((FileResult(str(p.relative_to(real_data)), 0, 0), False, False), root=real_data)
        for p in files
    ]
    found = find_alike(thumbnails_of(values), [None] * len(files), np.full(len(files), UNKNOWN))
    assert [one.members for one in found] == [tuple(range(len(versions)))]
    assert len(takes) == pytest.approx(9, abs=3)
