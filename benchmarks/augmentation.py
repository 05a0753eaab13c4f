"""The augmentation of pretraining against torchvision's on PIL images, one core.

    python -m benchmarks.augmentation

Both draw parameters from the same distribution and turn decoded frames, ``(H, W, 3)`` uint8
arrays, into uint8 tensors; with OpenCV also into normalised float tensors, as torchvision's recipe
does. Then the worker's part of augmentation on the device, against all of it in the worker. A round
is a block of images.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torchvision import transforms as tv

from benchmarks.timing import VECTORS, Comparison, compare, report
from vclr_lightning.data.transforms import Backend, PretrainTransform
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize

OURS, OPENCV, TORCHVISION = "vclr_lightning", "vclr_lightning, OpenCV", "torchvision on PIL"
WHOLE, BEGUN = "all in the worker", "crop in the worker"
LEAST_BEGUN = 3.0
LEAST_FLOAT = {"AVX2": {OPENCV: 4.5}, "AVX512": {OPENCV: 3.5}}  # by the kind of processor
# Height and width of the frame, size of the view, least ratio (the others are for information).
CASES = {
    "340 x 256 to 224": ((256, 340), 224, 2.2),
    "340 x 256 to 112": ((256, 340), 112, None),
    "96 x 80 to 64": ((80, 96), 64, None),
}


def _frame(height: int, width: int) -> NDArray[np.uint8]:
    """Soft shapes in colour with some noise on them."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)


def _ours(frame: NDArray[np.uint8], size: int, backend: Backend) -> Callable[[], torch.Tensor]:
    transform, rng = PretrainTransform(size=size, backend=backend), np.random.default_rng(0)
    return lambda: transform([frame], rng)


def _begun(frame: NDArray[np.uint8], size: int) -> Callable[[], object]:
    transform, rng = PretrainTransform(size=size), np.random.default_rng(0)
    return lambda: transform.begin([frame], rng)


def torchvision(size: int, *, floats: bool) -> Callable[[Image.Image], torch.Tensor]:
    """The published recipe of MoCo v2 on PIL images."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    torch.manual_seed(0)
    random.seed(0)
    last = [tv.ToTensor(), tv.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    transform: Callable[[Image.Image], torch.Tensor] = tv.Compose(
        [
            tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            tv.RandomGrayscale(0.2),
            tv.RandomApply([blur], p=0.5),
            tv.RandomHorizontalFlip(),
            *(last if floats else [tv.PILToTensor()]),
        ]
    )
    return transform


def _torchvision(
    frame: NDArray[np.uint8], size: int, *, floats: bool = False
) -> Callable[[], object]:
    transform = torchvision(size, floats=floats)
    return lambda: transform(Image.fromarray(frame))


def _normalized(run: Callable[[], torch.Tensor]) -> Callable[[], object]:
    return lambda: normalize(run())


def measure(repeats: int, pictures: int) -> dict[str, Comparison]:
    """Measure every case, ``pictures`` in each of ``repeats`` rounds."""
    np.ones(2**24, dtype=np.uint8)  # keeps freed memory, as a data worker's batches do

    def block(run: Callable[[], object]) -> Callable[[int], object]:
        return lambda _: [run() for _ in range(pictures)]

    found = {
        f"{name}, {pictures} pictures": compare(
            {
                TORCHVISION: block(_torchvision(frame, size)),
                OURS: block(_ours(frame, size, "torch")),
                OPENCV: block(_ours(frame, size, "opencv")),
            },
            baseline=TORCHVISION,
            repeats=repeats,
            targets={OURS: least} if least else None,
            label=name,
        )
        for name, (shape, size, least) in CASES.items()
        for frame in [_frame(*shape)]
    }
    frame, size = _frame(256, 340), 224
    found[f"340 x 256 to 224, floats, {pictures} pictures"] = compare(
        {
            TORCHVISION: block(_torchvision(frame, size, floats=True)),
            OPENCV: block(_normalized(_ours(frame, size, "opencv"))),
        },
        baseline=TORCHVISION,
        repeats=repeats,
        targets=LEAST_FLOAT.get(VECTORS),
        label="floats",
    )
    found[f"340 x 256 to 224, the worker's part, {pictures} pictures"] = compare(
        {WHOLE: block(_ours(frame, size, "torch")), BEGUN: block(_begun(frame, size))},
        baseline=WHOLE,
        repeats=repeats,
        targets={BEGUN: LEAST_BEGUN},
        label="the worker's part",
    )
    return found


def main() -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count")
    parser.add_argument("--pictures", type=int, default=40, help="pictures in a round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    return report(measure(arguments.repeats, arguments.pictures))


if __name__ == "__main__":
    sys.exit(main())
