"""Small real videos of several kinds."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write() -> Write:
    """``write(path, frames=30, size=(64, 48), times=None, turned=False)`` encodes moving blocks."""

    def write(
        path: Path,
        frames: int = 30,
        *,
        size: tuple[int, int] = (64, 48),
        times: list[int] | None = None,
        turned: bool = False,
        codec: str = "libx264",
        seed: int = 0,
    ) -> Path:
        width, height = size
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(40, 220, (height // 8 + 1, width // 8 + 1, 3))
        ground = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)[:height, :width]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            stream.codec_context.time_base = Fraction(1, 1000 if times else 25)
            for k in range(frames):
                picture = np.roll(ground, 2 * k, axis=1)
                picture[: height // 3, : width // 3] = (250, 20, 20)  # which side is up
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = times[k] if times else k
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if turned:
            _patch_rotation(path)
        return path

    return write


_UNTURNED = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
_QUARTER = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()


def _patch_rotation(path: Path) -> None:
    """Put a display matrix that turns clockwise into the track's header of an MP4."""
    content = path.read_bytes()
    header = content.index(b"tkhd")
    at = content.index(_UNTURNED, header)
    path.write_bytes(content[:at] + _QUARTER + content[at + len(_UNTURNED) :])
