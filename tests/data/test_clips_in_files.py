"""Rows that are a part of their file give frames of that part alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vclr_lightning.data.loading.clip_reading import read_drawn, window_indices
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.evaluation_datasets import FramesDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoError, VideoReader
from vclr_lightning.data.readers import ImageFolderReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler

Decode = Callable[[Path], list[NDArray[np.uint8]]]
# Seconds at which the frames of the uneven video are shown: ten a second, then two a second.
UNEVEN = [*(k / 10 for k in range(10)), *(1 + k / 2 for k in range(10))]


@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames"),
    [("mp4", "libx264", 0), ("mp4", "libx264", 2), ("mkv", "libx264", 2), ("mp4", "mpeg4", 0)],
)
@pytest.mark.parametrize("times", [UNEVEN, [k / 10 for k in range(20)]], ids=["uneven", "even"])
def test_frames_are_those_shown_within_the_window(
    tmp_path: Path,
    reader: VideoReader,
    decode: Decode,
    suffix: str,
    codec: str,
    b_frames: int,
    times: list[float],
    write_at: Callable[..., Path],
    list_clips: Callable[..., Manifest],
) -> None:
    file = write_at(tmp_path / f"v.{suffix}", times, codec=codec, b_frames=b_frames)
    pictures = decode(file)
    windows = ((0.0, 0.45), (0.3, 1.6), (0.9, 1.05), (1.12, 1.17), (1.5, 100.0))
    manifest = list_clips(tmp_path, *windows, path=file.name)
    for row, (start, end) in enumerate(sorted(windows)):
        within = [k for k, time in enumerate(times) if start <= time < end]
        if not within:  # the one on screen
            within = [max(k for k, time in enumerate(times) if time <= start)]
        count, frames = read_drawn(manifest, row, reader, lambda n: (n, np.arange(n)))
        assert count == len(within)
        for frame, index in zip(frames, within, strict=True):
            assert np.array_equal(frame, pictures[index])


def test_samples_of_a_clip(
    tmp_path: Path,
    reader: VideoReader,
    transform: ClipTransform,
    eval_transform: ClipTransform,
    write_at: Callable[..., Path],
    list_clips: Callable[..., Manifest],
) -> None:
    file = write_at(tmp_path / "v.mp4", [k / 10 for k in range(30)], codec="libx264")
    part = list_clips(tmp_path, (1.0, 1.5), path=file.name)
    options = {"manifest": part, "reader": reader}
    sample = FramesDataset(**options, transform=eval_transform, num_frames=8)[0]
    assert (sample["count"], sample["valid"]) == (5, True)
    views = VideoDataset(**options, samplers={"tuples": TupleSampler()}, transform=transform)[0, 0]
    assert (
        max(int(indices.max()) for indices in views["frame_indices"].values() if indices.size) < 5
    )

    (tmp_path / "whole").mkdir()
    whole = list_clips(
        tmp_path / "whole", None, path=file.rename(tmp_path / "whole" / "v.mp4").name
    )
    _, frames = read_drawn(whole, 0, reader, lambda n: (n, np.arange(10, 15)))
    expected = [eval_transform([frame], np.random.default_rng(0)) for frame in frames]
    assert torch.equal(sample["frames"][:5], torch.stack(expected))


def test_a_window_beyond_the_end_is_a_bad_video(
    tmp_path: Path,
    reader: VideoReader,
    eval_transform: ClipTransform,
    write_at: Callable[..., Path],
    list_clips: Callable[..., Manifest],
) -> None:
    file = write_at(tmp_path / "v.mp4", [0.0, 0.1, 0.2], codec="libx264")
    manifest = list_clips(tmp_path, (5.0, 6.0), path=file.name)
    sample = FramesDataset(manifest=manifest, reader=reader, transform=eval_transform)[0]
    assert not sample["valid"]
    reason = sample["rejected"][0]["reason"]
    assert reason == "the clip begins at 5, and the video ends at 0.3"


def test_windows_of_extracted_frames_count_frames(
    tmp_path: Path,
    list_clips: Callable[..., Manifest],
) -> None:
    (tmp_path / "v").mkdir()
    for k in range(8):
        Image.new("RGB", (8, 8), (30 * k,) * 3).save(tmp_path / "v" / f"{k + 1}.png")
    manifest = list_clips(tmp_path, (2, 5), path="v")
    reader = ImageFolderReader(template="{:d}.png")
    _, frames = read_drawn(manifest, 0, reader, lambda n: (n, np.arange(n)))
    assert [int(frame[0, 0, 0]) for frame in frames] == [60, 90, 120]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
    st.floats(0, 12),
    st.floats(0.001, 12),
)
def test_windows_next_to_each_other_share_no_frame(
    steps: list[int], start: float, length: float
) -> None:
    times = np.concatenate([[0], np.cumsum(steps)[:-1]]) / 10
    middle = start + length
    assume(middle < times[-1])
    before, behind = window_indices(times, start, middle), window_indices(times, middle, 1e9)
    assert behind.stop == len(times)
    shown = np.flatnonzero((times >= start - 1e-6) & (times < middle - 1e-6))
    if len(shown):
        assert list(before) == shown.tolist()
        assert before.stop == behind.start
    else:  # the one on screen all the time
        (index,) = before
        assert times[index] < start
        assert index + 1 == behind.start


def test_one_frame_alone() -> None:
    assert window_indices(np.zeros(1), 0.0, 1.0) == range(1)
    with pytest.raises(VideoError, match="ends at 0"):
        window_indices(np.zeros(1), 1.0, 2.0)
