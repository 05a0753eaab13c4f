"""A sample end to end, from videos and from extracted frames: read 3 + 3 frames, augment them.

    python -m benchmarks.sample

Clips with the content of `benchmarks.decode`, 10 s of 340x256 in x264's own quality (crf 23), with
a keyframe every 12 frames (g12) and with keyframes alone (intra), against the same frames as JPEG
files, which PIL opens and torchvision augments. Ours is a sample of `VideoDataset`: frames are
drawn, the file is opened and read, each frame is augmented to 224 pixels with its own draw, and the
views are stacked. Both end as normalised floats, although ours are normalised on the device in
training; what the device does is left out. All in one thread.
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
from PIL import Image
from rich.console import Console

from benchmarks.augmentation import torchvision
from benchmarks.decode import FRAMES, draw, make_clips
from benchmarks.timing import VECTORS, Comparison, compare, report
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import PretrainTransform
from vclr_lightning.data.transforms.backends import Augment, choose
from vclr_lightning.functional.pixels import normalize

PICTURES = "extracted JPEGs + PIL"
CASES: dict[str, Augment] = {
    "vclr_lightning": "torch",
    "vclr_lightning, OpenCV": "opencv",
    "vclr_lightning, the rest on the device": "device",
}
# What is reached depends on the kind of processor: with AVX-512, OpenCV gains nothing over torch.
_WITH_AVX2 = {
    "g12": {"vclr_lightning": 1.25, "vclr_lightning, OpenCV": 1.6},
    "intra": {"vclr_lightning": 1.8, "vclr_lightning, OpenCV": 3.0},
}
_WITH_AVX512 = {
    "g12": {"vclr_lightning": 1.35, "vclr_lightning, OpenCV": 1.35},
    "intra": {"vclr_lightning": 2.3, "vclr_lightning, OpenCV": 2.3},
}
LEAST = {"AVX2": _WITH_AVX2, "AVX512": _WITH_AVX512}.get(VECTORS, {key: {} for key in _WITH_AVX2})
CRF = "23"
QUALITY = 95  # of the pictures: that of OpenCV's imwrite, by which frames are mostly extracted
SIZE = 224
CALLS = dict.fromkeys(CASES, 3)  # of different draws


def _extract(clip: Path, folder: Path) -> Path:
    folder.mkdir()
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            frame.to_image().save(folder / f"img_{index:05d}.jpg", quality=QUALITY)
    return folder


def _from_pictures(folder: Path) -> Callable[[int], object]:
    transform = torchvision(SIZE, floats=True)

    def run(number: int) -> object:
        views = []
        for index in draw(number):
            with Image.open(folder / f"img_{index:05d}.jpg") as picture:
                views.append(transform(picture.convert("RGB")))
        return torch.stack(views)

    return run


def _from_video(clip: Path, augment: Augment) -> Callable[[int], object]:
    file = clip.with_suffix(".arrow")
    if not file.exists():
        row = Row(path=clip.name, group=clip.stem, num_frames=FRAMES, exact=True)
        write_manifest(file, [row], Info(root=clip.parent))
    dataset = VideoDataset(
        manifest=Manifest.load(file),
        reader=PyAVReader(),
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=choose(PretrainTransform(size=SIZE), augment),
        views=("anchor", "positive"),
        begin_only=augment == "device",
    )

    def run(number: int) -> object:
        sample = dataset[number % 2**32, 0]
        return {name: normalize(view) for name, view in sample.get("views", {}).items()}

    return run


def measure(repeats: int) -> dict[str, Comparison]:
    """Measure both clips."""
    found: dict[str, Comparison] = {}
    np.ones(2**24, dtype=np.uint8)  # keeps freed memory, as a data worker's batches do
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, quality=CRF)
        for spacing, targets in LEAST.items():
            clip = clips[spacing]
            pictures = _extract(clip, folder / spacing)
            ratio = sum(p.stat().st_size for p in pictures.iterdir()) / clip.stat().st_size
            Console().print(f"{spacing}: the pictures are {ratio:.1f} x as large as the video")
            runs = {case: _from_video(clip, augment) for case, augment in CASES.items()}
            found[f"a sample from {spacing}"] = compare(
                {PICTURES: _from_pictures(pictures), **runs},
                baseline=PICTURES,
                repeats=repeats,
                targets=targets,
                calls=CALLS,
                label=spacing,
            )
    return found


def main() -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=41, help="rounds that count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    return report(measure(options.repeats))


if __name__ == "__main__":
    sys.exit(main())
