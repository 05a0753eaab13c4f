"""Windows of CoCLR and DPC, against loops over a video's frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling import RandomWindow, SlidingWindows

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 20, 31, 32, 33, 46, 47, 48, 62, 300])
def test_coclr_s_test_windows(n: int) -> None:
    expected, start = [], 0
    while start <= n - 32:
        expected.append([start + t for t in range(32)])
        start += 15
    if n < 32:
        expected = [[0] * (32 - n) + list(range(n))]
    found = SlidingWindows(frames_per_clip=32).windows(n, RNG)
    assert found[:, 0].tolist() == expected


@pytest.mark.parametrize("blocks_apart", [4, 6])
@pytest.mark.parametrize("n", [118, 121, 177, 178, 179, 300])
def test_dpc_s_test_windows(n: int, blocks_apart: int) -> None:
    kept = list(range(n))[::3]
    blocks = [kept[i : i + 5] for i in range(0, len(kept) - 4, 5)]
    expected = [blocks[i : i + 8] for i in range(0, len(blocks) - 7, blocks_apart)]
    windows = SlidingWindows(
        num_segments=8, frames_per_clip=5, stride=3, every=5 * blocks_apart, pad="end"
    )
    assert windows.windows(n, RNG).tolist() == expected


def test_a_short_video_repeats_its_last_frame_at_the_end() -> None:
    windows = SlidingWindows(num_segments=2, frames_per_clip=3, stride=3, every=3, pad="end")
    assert windows.windows(8, RNG).tolist() == [[[0, 3, 6], [6, 6, 6]]]


@pytest.mark.parametrize(("n", "starts"), [(35, {0, 1, 2}), (33, {0}), (32, {0})])
def test_a_random_window_never_has_the_last_frame(n: int, starts: set[int]) -> None:
    sampler = RandomWindow(frames_per_clip=32)
    rng = np.random.default_rng(1)
    draws = [sampler(n, rng).frame_indices["segments"] for _ in range(60)]
    assert {int(draw[0, 0]) for draw in draws} == starts
    assert all((np.diff(draw[0]) == 1).all() for draw in draws)


@given(st.integers(1, 90), st.integers(1, 4), st.integers(1, 6), st.integers(1, 4))
def test_windows_go_on_at_their_stride(n: int, clips: int, frames: int, stride: int) -> None:
    shape = {"num_segments": clips, "frames_per_clip": frames, "stride": stride}
    for windows in (RandomWindow(**shape), SlidingWindows(**shape, pad="end")):
        found = windows.windows(n, RNG)
        assert found.shape[1:] == (clips, frames)
        assert found.min() >= 0
        assert found.max() < n
        if n > clips * frames * stride:
            assert (np.diff(found.reshape(len(found), -1), axis=1) == stride).all()


def test_windows_at_a_rate_are_those_of_the_frames_on_screen() -> None:
    times = np.arange(40) / 20
    windows = SlidingWindows(frames_per_clip=4, rate=10, every=2)
    found = windows.windows(40, np.random.default_rng(0), times=times)[:, 0]
    assert (np.diff(found, axis=1) == 2).all()
    assert (np.diff(found[:, 0]) == 4).all()
    with pytest.raises(UserError, match="needs times"):
        windows.windows(40, RNG)


@pytest.mark.parametrize("wrong", [{"pad": "middle"}, {"every": 0}, {"num_segments": 0}])
def test_mistakes(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        SlidingWindows(**wrong)
