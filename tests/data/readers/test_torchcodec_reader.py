"""The torchcodec reader gives the frames that the default reader gives, by the same indices."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import pyav_ffmpeg
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import PyAVReader, TorchcodecReader
from vclr_lightning.data.readers.opening import FilePart, InMemory
from vclr_lightning.data.readers.torchcodec import TorchcodecVideo

LACK = pyav_ffmpeg.missing()
X264 = {"preset": "ultrafast", "g": "12"}
needs_ffmpeg = pytest.mark.skipif(LACK is not None, reason=f"{LACK}")


@pytest.mark.skipif(LACK is None, reason="torchcodec can be loaded")
@pytest.mark.skipif(find_spec("torchcodec") is None, reason="torchcodec is not installed")
def test_these_tests_run_on_the_libraries_of_pyav() -> None:
    with pyav_ffmpeg.environment() as env:
        if env is None:
            pytest.skip(f"{LACK}, and those of PyAV cannot be used")
        command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 10


@pytest.mark.skipif(LACK is None, reason="torchcodec can be loaded")
def test_absent_libraries_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"torchcodec (finds no shared libraries|cannot be loaded)"):
        TorchcodecReader()


def test_an_absent_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(UserError, match=r"pip install 'vclr_lightning\[torchcodec\]'"):
        TorchcodecReader()


@needs_ffmpeg
@pytest.mark.parametrize(
    ("kind", "by_torchcodec"),
    [
        ({"suffix": ".mp4", "codec": "libx264", "options": X264}, True),
        ({"suffix": ".mp4", "codec": "libx264", "options": X264, "irregular": True}, True),
        ({"suffix": ".mkv", "codec": "libx264", "options": X264 | {"bf": "3"}}, True),
        (
            {
                "suffix": ".mp4",
                "codec": "libx264",
                "options": X264 | {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"},
            },
            True,
        ),
        (
            {"suffix": ".mp4", "codec": "libx264", "options": X264, "pix_fmt": "yuv420p10le"},
            False,
        ),
        ({"suffix": ".mp4", "codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, True),
        ({"suffix": ".webm", "codec": "libvpx", "options": {"deadline": "realtime"}}, True),
        (
            {
                "suffix": ".webm",
                "codec": "libvpx-vp9",
                "options": {"g": "16", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "10"},
            },
            True,
        ),
        ({"suffix": ".avi", "codec": "mpeg4", "options": {"g": "12", "bf": "2"}}, False),
        ({"suffix": ".ts", "codec": "libx264", "options": X264}, False),
        ({"suffix": ".flv", "codec": "libx264", "options": X264}, False),
    ],
    ids=lambda value: f"{value['codec']}{value['suffix']}" if isinstance(value, dict) else None,
)
def test_frames_are_those_of_the_default_reader(
    kind: dict[str, Any], by_torchcodec: bool, video: Callable[..., Path]
) -> None:
    path = video(**kind)
    with PyAVReader().open(path) as ours, TorchcodecReader().open(path) as theirs:
        assert isinstance(theirs, TorchcodecVideo) is by_torchcodec
        assert theirs.num_frames == ours.num_frames
        np.testing.assert_array_equal(theirs.times(), ours.times())
        last = ours.num_frames - 1
        for indices in ([0], [last], [last, 3, 3, 0], range(ours.num_frames)):
            for a, b in zip(theirs.read(indices), ours.read(indices), strict=True):
                assert a.dtype == np.uint8
                np.testing.assert_array_equal(a, b)
        assert theirs.read([]) == []
        with pytest.raises(IndexError):
            theirs.read([ours.num_frames])


@needs_ffmpeg
def test_real_files(real_data: Path) -> None:
    for folder in ("clips", "clips_derived"):
        for path in sorted(p for p in (real_data / folder).iterdir() if p.suffix != ".tsv"):
            rng = np.random.default_rng(0)
            try:
                with PyAVReader().open(path) as ours:
                    with suppress(FrameCountChangedError):
                        ours.read([ours.num_frames - 1])
                    indices = rng.integers(0, ours.num_frames, 6)
                    truth, count = ours.read(indices), ours.num_frames
            except VideoError as error:
                with (
                    pytest.raises(VideoError, match=re.escape(str(error)[:20])),
                    TorchcodecReader().open(path) as theirs,
                ):
                    theirs.read([0, theirs.num_frames - 1])
                continue
            # Of a file in doubt a manifest knows the count.
            with TorchcodecReader().open(path, num_frames=count) as theirs:
                assert theirs.num_frames == count, path.name
                for a, b in zip(theirs.read(indices), truth, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=path.name)


@needs_ffmpeg
def test_another_count_than_was_known_is_settled_by_the_default_reader(
    video: Callable[..., Path],
) -> None:
    path = video(".mp4", "libx264", options=X264)
    with TorchcodecReader().open(path, num_frames=60) as opened:
        assert not isinstance(opened, TorchcodecVideo)
        with pytest.raises(FrameCountChangedError) as caught:
            opened.read([59])
    assert caught.value.actual == 50


@needs_ffmpeg
def test_a_cut_file_is_of_fewer_frames(video: Callable[..., Path], tmp_path: Path) -> None:
    whole = video(".mp4", "libx264", options=X264, container={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 3 // 5])
    with TorchcodecReader().open(path) as opened:
        with pytest.raises(FrameCountChangedError) as caught:
            opened.read([opened.num_frames - 1])
        assert opened.num_frames == caught.value.actual < 50
        assert len(opened.read([0, caught.value.actual - 1])) == 2


@needs_ffmpeg
def test_errors_are_those_of_the_default_reader(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path in (text, empty, tmp_path / "no.mp4", tmp_path):
        with pytest.raises(VideoError) as ours, PyAVReader().open(path):
            pass
        with pytest.raises(VideoError, match=f"^{re.escape(str(ours.value))}$"):
            TorchcodecReader().open(path).__enter__()


@needs_ffmpeg
def test_parts_of_files_and_bytes_in_memory(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video(".mp4", "libx264", options=X264)
    content = path.read_bytes()
    large = tmp_path / "lärge, file.tar"
    large.write_bytes(b"x" * 512 + content + b"y" * 999)
    reader: TorchcodecReader = pickle.loads(pickle.dumps(TorchcodecReader()))
    with PyAVReader().open(path) as ours:
        truth = ours.read([3, 40])
    for source in (FilePart(large, 512, len(content)), InMemory(content)):
        with reader.open(source) as theirs:
            assert isinstance(theirs, TorchcodecVideo)
            np.testing.assert_array_equal(theirs.read([3, 40]), truth)
