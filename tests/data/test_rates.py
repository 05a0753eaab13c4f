"""Clips at a rate in frames per second: also of videos at an uneven rate, and parts of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.types import Draw
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.evaluation_datasets import CentresDataset, FramesDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader
from vclr_lightning.data.readers import ImageFolderReader
from vclr_lightning.data.sampling import FramePairSampler, Prefixed, SegmentSampler, TupleSampler
from vclr_lightning.data.sampling.frame_indices import clip_indices, possible_starts
from vclr_lightning.data.transforms import PretrainTransform, ViewsTransform

Decode = Callable[[Path], list[NDArray[np.uint8]]]
# Seconds at which frames are shown: ten a second, then two a second.
UNEVEN = [*(k / 10 for k in range(10)), *(1 + k / 2 for k in range(10))]

steps_of_time = st.lists(st.integers(1, 400), min_size=1, max_size=40)  # milliseconds
rates = st.sampled_from([0.5, 2, 4, 7.5, 15, 29.97, 100])


def on_screen(times: list[float], moment: float) -> int:
    """The frame that a viewer sees at a moment."""
    return max(k for k, time in enumerate(times) if time <= moment + 1e-3)


@given(steps=steps_of_time, rate=rates, t=st.integers(1, 6), data=st.data())
def test_a_frame_of_a_clip_is_the_one_on_screen(
    steps: list[int], rate: float, t: int, data: st.DataObject
) -> None:
    times = [0.0, *(float(x) / 1000 for x in np.cumsum(steps))]
    start = data.draw(st.integers(0, len(times) - 1))
    found = clip_indices(
        np.array([start]), frames=t, num_frames=len(times), rate=rate, times=np.array(times)
    )
    assert found.tolist() == [[on_screen(times, times[start] + k / rate) for k in range(t)]]


@given(steps=steps_of_time, rate=rates, t=st.integers(0, 6))
def test_starts_at_which_a_clip_fits(steps: list[int], rate: float, t: int) -> None:
    times = [0.0, *(float(x) / 1000 for x in np.cumsum(steps))]
    fitting = [k for k, time in enumerate(times) if time + t / rate <= times[-1] + 1e-3]
    found = possible_starts(len(times), steps=t, rate=rate, times=np.array(times))
    assert found == max(1, len(fitting))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_at_an_even_rate_it_is_a_stride(stride: int) -> None:
    times = np.arange(100) * (1001 / 30000)
    at: dict[str, Any] = {"rate": 30000 / 1001 / stride, "times": times}
    starts = np.arange(100)
    for t in (1, 4, 16):
        by_rate = clip_indices(starts, frames=t, num_frames=100, **at)
        assert np.array_equal(
            by_rate, clip_indices(starts, frames=t, num_frames=100, stride=stride)
        )
        assert possible_starts(100, steps=t, **at) == possible_starts(100, steps=t, stride=stride)


@pytest.mark.parametrize(
    "make",
    [
        lambda **rate: TupleSampler(frames_per_clip=8, **rate),
        lambda **rate: SegmentSampler(num_segments=3, frames_per_clip=8, **rate),
        lambda **rate: FramePairSampler(frames_per_clip=8, **rate),
        lambda **rate: Prefixed(TupleSampler(frames_per_clip=8, **rate), prefix="b_"),
    ],
)
def test_clips_span_the_same_time_at_15_and_60_fps(make: Callable[..., Any]) -> None:
    sampler = make(rate=7.5)
    assert sampler.needs_times
    assert not make().needs_times
    for fps in (15, 60):
        times = np.arange(20 * fps) / fps
        drawn = sampler(len(times), np.random.default_rng(3), times=times)
        plain = make()(len(times), np.random.default_rng(3))
        for name, indices in drawn.frame_indices.items():
            assert np.array_equal(indices[:, 0], plain.frame_indices[name][:, 0])
            whole = indices[indices[:, -1] < len(times) - 1]
            assert np.allclose(np.diff(times[whole], axis=1), 1 / 7.5)
        assert all(np.array_equal(rows, plain.rows[name]) for name, rows in drawn.rows.items())


@pytest.mark.parametrize("window", [None, (0.55, 4.2)])
@pytest.mark.parametrize(("suffix", "b_frames"), [("mp4", 2), ("mkv", 0)])
def test_clips_of_an_uneven_video(
    tmp_path: Path,
    reader: VideoReader,
    decode: Decode,
    transform: PretrainTransform,
    suffix: str,
    b_frames: int,
    window: tuple[float, float] | None,
    write_at: Callable[..., Path],
    list_clips: Callable[..., Manifest],
) -> None:
    file = write_at(tmp_path / f"v.{suffix}", UNEVEN, codec="libx264", b_frames=b_frames)
    pictures, manifest = decode(file), list_clips(tmp_path, window, path=file.name)
    start, end = window or (0.0, 100.0)
    first = next(k for k, time in enumerate(UNEVEN) if time >= start)
    times = [time for time in UNEVEN if start <= time < end]
    sampler = TupleSampler(num_segments=2, frames_per_clip=4, rate=4)
    dataset = VideoDataset(
        manifest=manifest, reader=reader, samplers={"t": sampler}, transform=transform
    )
    for epoch in range(4):
        sample = dataset[epoch, 0]
        assert not sample["rejected"]
        for name, indices in sample["frame_indices"].items():
            for number, clip in enumerate(indices.tolist()):
                seen = [on_screen(times, times[clip[0]] + k / 4) for k in range(4)]
                assert clip == seen
                rng = numpy_generator(0, epoch, 0, 0, "augment", name, number)
                expected = transform([pictures[first + k] for k in seen], rng)
                assert torch.equal(sample["views"][name][number], expected)


def test_evaluation_reads_clips_at_a_rate(
    tmp_path: Path,
    reader: VideoReader,
    decode: Decode,
    eval_transform: ClipTransform,
    write_at: Callable[..., Path],
    list_clips: Callable[..., Manifest],
) -> None:
    file = write_at(tmp_path / "v.mp4", UNEVEN, codec="libx264")
    pictures, rng = decode(file), np.random.default_rng(0)
    given: dict[str, Any] = {
        "manifest": list_clips(tmp_path, None, path=file.name),
        "reader": reader,
    }
    clip = {"frames_per_clip": 3, "rate": 5}  # 0.4 seconds
    starts = [k for k, time in enumerate(UNEVEN) if time + 0.4 <= UNEVEN[-1]]

    def read(start: int) -> list[NDArray[np.uint8]]:
        return [pictures[on_screen(UNEVEN, UNEVEN[start] + k / 5)] for k in range(3)]

    frames = FramesDataset(**given, transform=eval_transform, num_frames=2, **clip)[0]["frames"]
    for number, start in enumerate((starts[0], starts[-1])):
        assert torch.equal(frames[number], eval_transform(read(start), rng))
    spread = FramesDataset(**given, transform=eval_transform, every=6, **clip)[0]["frames"]
    assert len(spread) == 3
    for number, middle in enumerate((3, 9, 15)):  # clips around these frames
        start = min(on_screen(UNEVEN, UNEVEN[middle] - 0.2), starts[-1])
        assert torch.equal(spread[number], eval_transform(read(start), rng))
    views = ViewsTransform(size=32, resize=36, crops="center")
    tested = CentresDataset(**given, transform=views, num_segments=1, **clip)[0]["views"]  # type: ignore[arg-type]
    assert torch.equal(tested[0, 0], views(read(len(starts) // 2))[0])


def test_extracted_frames_have_no_rate(
    manifest: Manifest, transform: ClipTransform, eval_transform: ClipTransform
) -> None:
    given: dict[str, Any] = {"manifest": manifest, "reader": ImageFolderReader()}
    sampler = SegmentSampler(frames_per_clip=4, rate=5)
    with pytest.raises(UserError, match=r"extracted frames have no times.*frame_stride"):
        VideoDataset(**given, samplers={"a": sampler}, transform=transform)
    with pytest.raises(UserError, match=r"extracted frames have no times.*frame_stride"):
        FramesDataset(**given, transform=eval_transform, frames_per_clip=4, rate=5)[0]
    for make in (SegmentSampler, TupleSampler, FramePairSampler):
        with pytest.raises(UserError, match="rate=0 frames per second must be above 0"):
            make(rate=0)


def test_a_sampler_that_forgets_its_times_is_at_fault(
    manifest: Manifest, reader: VideoReader, transform: ClipTransform
) -> None:
    class Forgetful(SegmentSampler):
        needs_times = False  # type: ignore[assignment]

        def __call__(self, num_frames: int, rng: np.random.Generator, **_: Any) -> Draw:
            return super().__call__(num_frames, rng)

    with pytest.raises(CodeFault, match=r"Forgetful .* fails: ValueError: a rate needs the times"):
        VideoDataset(
            manifest=manifest,
            reader=reader,
            samplers={"a": Forgetful(frames_per_clip=2, rate=5)},
            transform=transform,
        )
