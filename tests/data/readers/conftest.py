"""Small videos of many kinds, and the plain decode that readers are held against."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

PYAV = int(av.__version__.split(".")[0])
Pictures = list[NDArray[np.uint8]]


def _moving_picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Texture that slides under a body that moves the other way."""
    rng = np.random.default_rng(7)
    ground = np.kron(rng.integers(20, 200, (24, 40, 3)), np.ones((8, 8, 1), int)).astype(np.uint8)
    picture = ground[number % 40 : number % 40 + height, 2 * number : 2 * number + width].copy()
    left = max(0, width - 20 - 2 * (number % 30))
    picture[height // 4 : height // 2, left : left + 16] = (250, 10 * (number % 20), 60)
    return picture


def _encode(
    path: Path,
    codec: str,
    *,
    options: Mapping[str, str] | None = None,
    container: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (96, 64),
    frames: int = 50,
    irregular: bool = False,
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", options=dict(container or {})) as file:
        stream: Any = file.add_stream(codec, rate=25, options=dict(options or {}))
        (stream.width, stream.height), stream.pix_fmt = size, pix_fmt
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_moving_picture(number, *size), format="rgb24")
            frame.time_base = Fraction(1, 25)
            frame.pts = number + (number // 3 if irregular else 0)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # As root this encoder makes its caller a real-time thread, which starves all others.
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``video(suffix, codec, ...)`` is a file of that kind, encoded once; not to be changed."""
    folder = tmp_path_factory.mktemp("kinds")
    made: dict[str, Path] = {}

    def get(suffix: str, codec: str, **how: Any) -> Path:
        key = repr((suffix, codec, sorted(how.items())))
        if key not in made:
            path = folder / f"{len(made):03d}{suffix}"
            _encode(path, codec, **how)
            made[key] = path
        return made[key]

    return get


@pytest.fixture(scope="session")
def plain() -> Callable[[Path], Pictures]:
    """Decode a whole file packet by packet, upright, with nothing of the reader's own code."""

    any_text: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV < 19 else {}

    def decode(path: Path) -> Pictures:
        pictures = []
        with av.open(str(path), **any_text) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                for frame in frames:
                    picture = frame.to_ndarray(format="rgb24")
                    pictures.append(np.rot90(picture, frame.rotation // 90))
        return pictures

    return decode


@pytest.fixture(scope="session")
def remux() -> Callable[..., Path]:
    """``remux(source, path, edit)`` copies packets, each as ``edit(number, packet)`` returns it."""

    def copy(
        source: Path,
        path: Path,
        edit: Callable[[int, av.Packet], av.Packet | None],
        **options: str,
    ) -> Path:
        with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
            template = old.streams.video[0]
            if PYAV < 15 and template.codec_context.extradata:
                pytest.skip("PyAV 14 does not copy all of a codec's header")
            stream = new.add_stream_from_template(template)
            packets = [packet for packet in old.demux(template) if packet.size]
            for number, packet in enumerate(packets):
                edited = edit(number, packet)
                if edited is not None:
                    edited.stream = stream
                    new.mux(edited)
        return path

    return copy


@pytest.fixture(scope="session")
def packet_places() -> Callable[[Path], list[tuple[int, int]]]:
    """Byte position and size of each packet of a file."""

    def places(path: Path) -> list[tuple[int, int]]:
        with av.open(str(path)) as container:
            return [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos]

    return places
