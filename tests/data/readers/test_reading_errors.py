"""Errors in reading the bytes of a file are told apart from what the bytes say."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import PyAVReader, probe
from vclr_lightning.data.readers.opening import FilePart, InMemory

Make = Callable[..., Path]
Plain = Callable[[Path], list[Any]]
X264 = {"threads": "1", "g": "12"}


class _Torn(io.BytesIO):
    """A file of which everything from a position on cannot be read."""

    def __init__(self, content: bytes, end: int) -> None:
        super().__init__(content)
        self._end = end

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() + (size or 0) > self._end:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


@dataclass(frozen=True)
class Torn(InMemory):
    """A video whose end cannot be read."""

    end: int = 0

    def target(self) -> IO[bytes]:
        return _Torn(self.content, self.end)

    opened = target


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", X264),
        (".mkv", "libx264", X264),
        (".ts", "libx264", X264),
        (".avi", "mpeg4", {"g": "12"}),
    ],
)
def test_bytes_that_cannot_be_read_are_never_taken_for_the_end(
    suffix: str, codec: str, options: dict[str, str], video: Make, plain: Plain
) -> None:
    path = video(suffix, codec, options=options)
    content, truth = path.read_bytes(), plain(path)
    failures = []
    for end in range(0, len(content) + 4096, 2048):
        try:
            with PyAVReader().open(Torn(content, end)) as opened:
                assert opened.num_frames == len(truth)
                frames = opened.read([0, 25, 49])
        except VideoError as error:
            failures.append((str(error), getattr(error.__cause__, "errno", None)))
        else:
            for index, frame in zip((0, 25, 49), frames, strict=True):
                np.testing.assert_array_equal(frame, truth[index])
    assert len(failures) > 2
    assert set(failures) == {("the file cannot be read: Input/output error", errno.EIO)}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails like a disk")
def test_an_error_of_the_system_is_reported_as_such() -> None:
    place = FilePart(Path("/proc/self/mem"), 0, 4096)  # reading it at 0 is an I/O error
    with pytest.raises(VideoError, match="cannot be read: Input/output error") as info:
        PyAVReader().open(place).__enter__()
    assert isinstance(info.value.__cause__, OSError)


def test_a_part_is_read_as_the_file_that_it_is(video: Make, plain: Plain, tmp_path: Path) -> None:
    path = video(".ts", "libx264", options=X264)  # decoded from its start, by way of Python
    content, truth = path.read_bytes(), plain(path)
    shard = tmp_path / "shard"
    shard.write_bytes(b"\x47" * 3000 + content + b"\x47" * 3000)
    with PyAVReader().open(FilePart(shard, 3000, len(content))) as opened:
        assert opened.num_frames == len(truth)
        for index, frame in zip((0, 49), opened.read([0, 49]), strict=True):
            np.testing.assert_array_equal(frame, truth[index])


def test_streams_that_begin_late_end_nothing(video: Make, plain: Plain, tmp_path: Path) -> None:
    """Two programmes one after the other: the second is no part of the first's header."""
    parts = [
        video(
            ".ts",
            "libx264",
            options={"threads": "1", "qp": "1"},
            container={"mpegts_start_pid": pid, "mpegts_pmt_start_pid": table},
        )
        for pid, table in (("80", "32"), ("256", "4096"))
    ]
    path = tmp_path / "late.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    truth = plain(parts[0])
    assert probe(path).num_frames == len(truth) == 50
    with PyAVReader().open(path) as opened:
        assert opened.num_frames == 50
        assert len(opened.times()) == 50
        for index, frame in zip((0, 20, 49), opened.read([0, 20, 49]), strict=True):
            np.testing.assert_array_equal(frame, truth[index])


def test_a_public_file_with_a_late_stream(real_data: Path) -> None:
    path = real_data / "public_inputs" / "late_stream.ts"
    if not path.exists():
        pytest.skip("it is not among the real videos")
    with PyAVReader().open(path) as opened:
        assert opened.num_frames == 96
        assert len(opened.read([0, 95])) == 2
