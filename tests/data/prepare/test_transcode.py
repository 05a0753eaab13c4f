"""A re-encoded video has the frames of its source, at their times, upright."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import PyAVReader

Write = Callable[..., Path]


def _decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _mean(picture: np.ndarray) -> np.ndarray:
    return picture.reshape(-1, 3).mean(0)


def test_size_keyframes_frames_and_times(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path / "a b.avi", 30, size=(128, 96), codec="mpeg4")
    found = transcode(source, tmp_path / "out/ä.mp4", Recipe(short_edge=64))
    frames = _decoded(tmp_path / "out/ä.mp4")
    assert (found.num_frames, found.exact, found.width, found.height) == (30, True, 86, 64)
    assert [k for k, frame in enumerate(frames) if frame.key_frame] == [0, 8, 16, 24]
    assert int(PictureType.B) not in {int(frame.pict_type) for frame in frames}
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 25)
    for old, new in zip(_decoded(source), frames, strict=True):
        small = old.reformat(86, 64).to_ndarray(format="rgb24").astype(int)
        assert np.abs(small - new.to_ndarray(format="rgb24")).mean() < 6
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["ä.mp4"]


def test_keyframes_alone(write: Write, tmp_path: Path) -> None:
    found = transcode(write(tmp_path / "a.mp4"), tmp_path / "b.mp4", Recipe(keyframe_every=1))
    assert found.keyframe_interval == 1


def test_a_variable_frame_rate_stays_one(write: Write, tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(10, 200, 39)
    times = [0, *np.cumsum(gaps).tolist()]
    source = write(tmp_path / "vfr.mp4", 40, times=times)
    transcode(source, tmp_path / "new.mp4", Recipe())
    with PyAVReader().open(tmp_path / "new.mp4") as video:
        np.testing.assert_allclose(video.times(), np.array(times) / 1000, atol=1e-4)


@pytest.mark.parametrize(("suffix", "codec"), [(".wmv", "wmv2"), (".ts", "mpeg2video")])
def test_times_are_those_of_the_frames_in_any_container(
    suffix: str, codec: str, write: Write, tmp_path: Path
) -> None:
    source = tmp_path / f"vfr{suffix}"
    shown = [k + 20 * (k > 9) + k // 3 for k in range(30)]  # in 25ths of a second
    with av.open(str(write(tmp_path / "a.mp4")), "r") as file, av.open(str(source), "w") as sink:
        stream: Any = sink.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for time, frame in zip(shown, file.decode(video=0), strict=True):
            frame.pts, frame.time_base, frame.pict_type = time, Fraction(1, 25), PictureType.NONE
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())
    found = transcode(source, tmp_path / "new.mp4", Recipe())
    assert found.duration == pytest.approx(shown[-1] / 25, abs=0.1)
    with PyAVReader().open(tmp_path / "new.mp4") as video:
        np.testing.assert_allclose(video.times(), np.array(shown) / 25, atol=1.5e-3)


def test_a_turned_video_is_stored_upright(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path / "turned.mp4", 10, size=(96, 64), turned=True)
    with PyAVReader().open(source) as video:
        (shown,) = video.read([5])
    assert shown.shape == (96, 64, 3)  # the reader turns it
    found = transcode(source, tmp_path / "new.mp4", Recipe(short_edge=64))
    stored = _decoded(tmp_path / "new.mp4")[5]
    assert not stored.rotation
    assert (found.width, found.height) == (64, 96)
    new = stored.to_ndarray(format="rgb24")
    assert np.abs(new.astype(int) - shown).mean() < 6
    assert _mean(new[:24, 48:])[0] > 200  # the red corner was turned from the left to the right


def test_nothing_is_enlarged_and_sizes_are_even(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path / "odd.avi", 5, size=(51, 39), codec="mpeg4")
    found = transcode(source, tmp_path / "new.mp4", Recipe())
    assert (found.width, found.height) == (50, 38)


@pytest.mark.parametrize("size", [(1920, 1080), (240, 320), (257, 301), (17, 4000)])
def test_sizes_keep_the_shape(size: tuple[int, int]) -> None:
    width, height = Recipe().size(*size)
    assert width % 2 == height % 2 == 0
    assert width <= size[0]
    assert height <= size[1]
    scale = min(1, 256 / min(size))
    assert abs(width - scale * size[0]) <= 1
    assert abs(height - scale * size[1]) <= 1


def test_sound_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "sound.mp4"
    with av.open(str(source), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(frame))
        noise = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp")
        noise.sample_rate = 8000
        container.mux([*picture.encode(), *sound.encode(noise), *sound.encode()])
    transcode(source, tmp_path / "new.mp4", Recipe())
    with av.open(str(tmp_path / "new.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_broken_file_leaves_nothing(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", 60)
    source.write_bytes(source.read_bytes()[:-200])
    with pytest.raises(VideoError):
        transcode(source, tmp_path / "out" / "a.mp4", Recipe())
    assert not (tmp_path / "out").exists()


def test_the_same_source_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4")
    for name in ("b", "c"):
        transcode(source, tmp_path / f"{name}.mp4", Recipe())
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


@pytest.mark.parametrize("wrong", [{"short_edge": 0}, {"keyframe_every": 0}, {"crf": 52}])
def test_values_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
        Recipe(**wrong)


def test_every_real_clip_keeps_its_frames(real_data: Path, tmp_path: Path) -> None:
    names = "10fps.gif 1frame.mp4 mpeg2.ts mpeg1.mpg rot90_meta.mp4 vfr.mp4 vp8.webm wmv2.wmv"
    for name in names.split():
        source = real_data / "clips_derived" / f"soccer_{name}"
        found = transcode(source, tmp_path / f"{source.name}.mp4", Recipe(short_edge=64))
        assert found.num_frames == len(_decoded(source)), source.name
        with (
            PyAVReader().open(source) as old,
            PyAVReader().open(tmp_path / f"{source.name}.mp4") as new,
        ):
            np.testing.assert_allclose(old.times(), new.times(), atol=1e-3, err_msg=source.name)
