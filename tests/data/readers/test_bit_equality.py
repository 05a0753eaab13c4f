"""Every frame that the reader gives equals the one of a plain decode, whatever the file is like."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import PyAVReader

X264 = {"threads": "1"}
BY_PLAN, FROM_START = True, False

# What a file is like, how it is made, and how the reader reads it in the end.
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "h264 mp4": ({"suffix": ".mp4", "codec": "libx264", "options": X264}, BY_PLAN),
    "h264 mp4 g12": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264 | {"g": "12"}},
        BY_PLAN,
    ),
    "h264 mp4 intra": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264 | {"g": "1"}},
        BY_PLAN,
    ),
    "h264 mp4 without B-frames": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264 | {"g": "8", "bf": "0"}},
        BY_PLAN,
    ),
    "h264 mp4 many B-frames": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"g": "25", "bf": "7", "x264-params": "b-adapt=0:b-pyramid=strict"},
        },
        BY_PLAN,
    ),
    "h264 mp4 open groups": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"},
        },
        BY_PLAN,
    ),
    "h264 mkv open groups": (
        {
            "suffix": ".mkv",
            "codec": "libx264",
            "options": X264 | {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"},
        },
        BY_PLAN,
    ),
    "h264 mp4 refreshed bit by bit": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"x264-params": "intra-refresh=1:keyint=12:bframes=0"},
        },
        BY_PLAN,
    ),
    "h264 mp4 interlaced": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"g": "12", "x264-params": "tff=1"},
        },
        FROM_START,
    ),
    "h264 mp4 fragmented": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"g": "12"},
            "container": {"movflags": "frag_keyframe+empty_moov"},
        },
        BY_PLAN,
    ),
    "h264 mp4 uneven times": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264 | {"g": "12"},
            "irregular": True,
        },
        BY_PLAN,
    ),
    "h264 mp4 gray": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264, "pix_fmt": "gray"},
        BY_PLAN,
    ),
    "h264 mp4 10 bit": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264, "pix_fmt": "yuv420p10le"},
        BY_PLAN,
    ),
    "h264 mp4 odd size": (
        {
            "suffix": ".mp4",
            "codec": "libx264",
            "options": X264,
            "pix_fmt": "yuv444p",
            "size": (61, 35),
        },
        BY_PLAN,
    ),
    "h264 mkv": ({"suffix": ".mkv", "codec": "libx264", "options": X264 | {"g": "12"}}, BY_PLAN),
    "h264 mkv live": (
        {
            "suffix": ".mkv",
            "codec": "libx264",
            "options": X264 | {"g": "12"},
            "container": {"live": "1"},
        },
        BY_PLAN,
    ),
    "h264 flv": ({"suffix": ".flv", "codec": "libx264", "options": X264 | {"g": "12"}}, FROM_START),
    "h264 ts": ({"suffix": ".ts", "codec": "libx264", "options": X264 | {"g": "12"}}, FROM_START),
    "h264 raw": (
        {"suffix": ".h264", "codec": "libx264", "options": X264 | {"g": "12"}},
        FROM_START,
    ),
    "h264 avi": ({"suffix": ".avi", "codec": "libx264", "options": X264 | {"g": "12"}}, FROM_START),
    "h264 avi without B-frames": (
        {"suffix": ".avi", "codec": "libx264", "options": X264 | {"g": "12", "bf": "0"}},
        BY_PLAN,
    ),
    "hevc mp4": (
        {
            "suffix": ".mp4",
            "codec": "libx265",
            "options": {"preset": "ultrafast", "x265-params": "keyint=12:log-level=none:pools=1"},
        },
        BY_PLAN,
    ),
    "hevc mkv closed groups": (
        {
            "suffix": ".mkv",
            "codec": "libx265",
            "options": {
                "preset": "ultrafast",
                "x265-params": "keyint=12:open-gop=0:bframes=4:log-level=none:pools=1",
            },
        },
        BY_PLAN,
    ),
    "hevc mp4 layered": (
        {
            "suffix": ".mp4",
            "codec": "libx265",
            "options": {
                "preset": "ultrafast",
                "x265-params": "keyint=24:temporal-layers=3:bframes=3:log-level=none:pools=1",
            },
        },
        BY_PLAN,
    ),
    "mpeg4 mp4": ({"suffix": ".mp4", "codec": "mpeg4", "options": {"g": "12"}}, BY_PLAN),
    "mpeg4 mp4 B-frames": (
        {"suffix": ".mp4", "codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
        FROM_START,
    ),
    "mpeg4 avi": ({"suffix": ".avi", "codec": "mpeg4", "options": {"g": "12"}}, BY_PLAN),
    "mpeg4 avi B-frames": (
        {"suffix": ".avi", "codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
        FROM_START,
    ),
    "mpeg4 avi without user data": (
        {"suffix": ".avi", "codec": "mpeg4", "options": {"g": "12", "flags": "+bitexact"}},
        BY_PLAN,
    ),
    "mpeg2 mkv": (
        {"suffix": ".mkv", "codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
        BY_PLAN,
    ),
    "mpeg2 mpg": (
        {"suffix": ".mpg", "codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
        FROM_START,
    ),
    "mpeg2 ts": (
        {"suffix": ".ts", "codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
        FROM_START,
    ),
    "vp8 webm": (
        {"suffix": ".webm", "codec": "libvpx", "options": {"g": "12", "deadline": "realtime"}},
        BY_PLAN,
    ),
    "vp9 webm": (
        {
            "suffix": ".webm",
            "codec": "libvpx-vp9",
            "options": {"g": "16", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "10"},
        },
        BY_PLAN,
    ),
    "av1 mp4": (
        {
            "suffix": ".mp4",
            "codec": "libsvtav1",
            "options": {"g": "16", "preset": "12", "svtav1-params": "lp=1"},
        },
        BY_PLAN,
    ),
    "mjpeg avi": (
        {"suffix": ".avi", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
        BY_PLAN,
    ),
    "prores mov": (
        {"suffix": ".mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"},
        BY_PLAN,
    ),
    "ffv1 mkv": ({"suffix": ".mkv", "codec": "ffv1", "options": {"g": "12"}}, BY_PLAN),
    "gif": ({"suffix": ".gif", "codec": "gif", "pix_fmt": "rgb8"}, FROM_START),
    "one frame": (
        {"suffix": ".mp4", "codec": "libx264", "options": X264, "frames": 1},
        BY_PLAN,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_equals_a_plain_decode(
    name: str, video: Callable[..., Path], plain: Callable[[Path], list[Any]]
) -> None:
    how, by_plan = KINDS[name]
    path = video(**how)
    truth = plain(path)
    rng = np.random.default_rng(0)
    ends = [[0], [len(truth) - 1], range(len(truth)), [len(truth) - 1, 0, 0]]
    drawn = [rng.integers(0, len(truth), rng.integers(1, 8)) for _ in range(12)]
    with PyAVReader().open(path) as opened:
        assert opened.num_frames == len(truth)
        for indices in [*ends, *drawn]:
            frames = opened.read(indices)
            assert len(frames) == len(indices)
            for index, frame in zip(indices, frames, strict=True):
                np.testing.assert_array_equal(frame, truth[index])
        # Before PyAV 17 an index, which a single frame needs, cannot be read.
        assert opened.by_plan is by_plan or not hasattr(av.stream.Stream, "index_entries")


@pytest.mark.parametrize("name", ["h264 mp4 g12", "h264 mkv open groups", "mpeg4 avi", "h264 ts"])
@pytest.mark.parametrize("threads", [0, 2])
def test_threads_change_no_frame(
    name: str, threads: int, video: Callable[..., Path], plain: Callable[[Path], list[Any]]
) -> None:
    path = video(**KINDS[name][0])
    truth = plain(path)
    with PyAVReader(thread_count=threads).open(path) as opened:
        for indices in ([3, 30, 41], [0, 49, 22, 23]):
            for index, frame in zip(indices, opened.read(indices), strict=True):
                np.testing.assert_array_equal(frame, truth[index])


@pytest.mark.parametrize("folder", ["clips", "clips_derived"])
def test_real_files(folder: str, real_data: Path, plain: Callable[[Path], list[Any]]) -> None:
    refused = {}
    files = sorted(file for file in (real_data / folder).iterdir() if file.suffix != ".tsv")
    rng = np.random.default_rng(0)
    for path in files:
        try:
            with PyAVReader().open(path) as opened:
                truth = plain(path)
                for _ in range(4):
                    indices = rng.integers(0, opened.num_frames, 6)
                    with suppress(FrameCountChangedError):
                        opened.read(indices)
                    indices = indices[indices < opened.num_frames]
                    frames = opened.read(indices)
                    for index, frame in zip(indices, frames, strict=True):
                        np.testing.assert_array_equal(frame, truth[index], err_msg=path.name)
                opened.read([opened.num_frames - 1])
                assert opened.num_frames == len(truth)
        except VideoError as error:
            refused[path.name] = str(error)
    assert set(refused) == {path.name for path in files if path.name in REFUSED}
    for name, reason in refused.items():
        assert REFUSED[name] in reason


REFUSED = {
    "bad_audio_only.mp4": "no video stream",
    "bad_bitflips_mdat.mp4": "damaged",
    "bad_text.mp4": "no video format",
    "bad_truncated_no_moov.mp4": "truncated",
    "bad_zero_bytes.mp4": "empty file",
}
