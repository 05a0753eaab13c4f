"""A few frames of a long video against those of a short one, and against decoding up to them.

    python -m benchmarks.untrimmed

Videos of 10 seconds and of `--minutes`, 160x120, 25 fps, H.264 with a keyframe every 50 frames, as
MP4 and Matroska. A call draws 6 random frames in one thread; opening the file counts. The packet
table of a long video is kept once it was read, as training keeps it in its cache folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from benchmarks.timing import Comparison, compare, report
from vclr_lightning.data.readers import PyAVReader, TableStore

WIDTH, HEIGHT, FPS, SHORT = 160, 120, 25, 10
FROM_START, SHORT_VIDEO = "decoded from the start", f"a video of {SHORT} s"
LONG, KEPT = "the long video", "the long video, table kept"
CALLS = {SHORT_VIDEO: 8, LONG: 2, KEPT: 4}  # of different draws


def _encode(path: Path, seconds: int) -> None:
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(20, 220, (30, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "50", "crf": "30", "threads": "1"}
        for number in range(seconds * FPS):
            top, left = number % 120, 2 * number % 320
            picture = np.ascontiguousarray(ground[top : top + HEIGHT, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def _read(path: Path, frames: int, reader: PyAVReader) -> Callable[[int], object]:
    def run(number: int) -> object:
        indices = np.random.default_rng(number % 2**32).integers(0, frames, 6)
        with reader.open(path) as video:
            return video.read(indices)

    return run


def _from_start(path: Path, frames: int) -> Callable[[int], object]:
    def run(number: int) -> object:
        indices = np.random.default_rng(number % 2**32).integers(0, frames, 6)
        wanted, last = set(indices.tolist()), int(indices.max())
        found = {}
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for index, frame in enumerate(container.decode(stream)):
                if index in wanted:
                    found[index] = frame.to_ndarray(format="rgb24")
                if index == last:
                    break
        return found

    return run


def measure(repeats: int, minutes: int) -> dict[str, Comparison]:
    """Measure both containers."""
    found: dict[str, Comparison] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in ("mp4", "mkv"):
            short, long = folder / f"short.{suffix}", folder / f"long.{suffix}"
            _encode(short, SHORT)
            _encode(long, 60 * minutes)
            frames = 60 * minutes * FPS
            keeping = PyAVReader(tables=TableStore(folder / "tables"))
            found[f"{suffix}, {minutes} minutes"] = compare(
                {
                    FROM_START: _from_start(long, frames),
                    SHORT_VIDEO: _read(short, SHORT * FPS, keeping),
                    LONG: _read(long, frames, PyAVReader()),
                    KEPT: _read(long, frames, keeping),
                },
                baseline=FROM_START,
                repeats=repeats,
                calls=CALLS,
                label=suffix,
            )
    return found


def main() -> int:
    """Measure and print; there is no target to miss."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count")
    parser.add_argument("--minutes", type=int, default=20, help="of the long video")
    options = parser.parse_args()
    return report(measure(options.repeats, options.minutes))


if __name__ == "__main__":
    sys.exit(main())
