"""A prepared data set against its source, end to end: open, read 3 + 3 frames, augment them.

    python -m benchmarks.prepared

Clips of 10 s, 30 fps, H.264 with a keyframe every 250 frames, 340x256 and 1280x720, with the
content of `benchmarks.decode`, are prepared as by `vclr prepare`: short edge 256, a keyframe every
8 frames, and once with keyframes alone. A call draws 3 + 3 frames, one of each third
of the clip, twice, and brings each to 224 pixels by the augmentation of pretraining, in one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from rich.console import Console

from benchmarks.decode import FPS, QUALITY, draw, make_clips
from benchmarks.timing import Comparison, compare, report
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.transforms import PretrainTransform

SOURCE, PREPARED, INTRA = "source", "prepared", "prepared, keyframes alone"
LEAST = {"340x256": 3.0, "1280x720": 10.0}
CALLS = {PREPARED: 4, INTRA: 4}  # of different draws


def _enlarged(clip: Path, out: Path) -> Path:
    """Encode the content of a clip at 720p, with as few keyframes."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"crf": QUALITY, "g": "250", "threads": "1"}
        for frame in source.decode(video=0):
            large = frame.reformat(1280, 720, "yuv420p", interpolation="BICUBIC")
            large.pict_type = 0  # or it would be a keyframe where the clip has one
            container.mux(stream.encode(large))
        container.mux(stream.encode())
    return out


def _sample(path: Path) -> Callable[[int], object]:
    reader, transform = PyAVReader(), PretrainTransform(size=224)

    def run(number: int) -> object:
        rng = np.random.default_rng(number % 2**32)
        with reader.open(path) as video:
            frames = video.read(draw(number))
        return [transform([frame], rng) for frame in frames]

    return run


def measure(repeats: int) -> dict[str, Comparison]:
    """Prepare both clips and measure them."""
    found: dict[str, Comparison] = {}
    np.ones(2**24, dtype=np.uint8)  # keeps freed memory, as a data worker's batches do
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = make_clips(folder)["g250"]
        sources = {"340x256": small, "1280x720": _enlarged(small, folder / "720p.mp4")}
        for size, source in sources.items():
            made = {}
            for case, recipe in ((PREPARED, Recipe()), (INTRA, Recipe(keyframe_every=1))):
                made[case] = folder / f"{size} {recipe.keyframe_every}.mp4"
                transcode(source, made[case], recipe)
                ratio = made[case].stat().st_size / source.stat().st_size
                Console().print(f"{size}, {case}: {ratio:.2f} x the bytes")
            found[f"{size}, end to end"] = compare(
                {SOURCE: _sample(source), **{case: _sample(file) for case, file in made.items()}},
                baseline=SOURCE,
                repeats=repeats,
                targets={PREPARED: LEAST[size]},
                calls=CALLS,
                label=size,
            )
    return found


def main() -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="rounds that count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    return report(measure(options.repeats))


if __name__ == "__main__":
    sys.exit(main())
