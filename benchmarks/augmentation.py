"""The augmentation of pretraining against torchvision's on PIL pictures, one core.

    python -m benchmarks.augmentation

Both draw their own parameters from the same law and turn decoded frames, ``(H, W, 3)`` uint8
arrays, into uint8 tensors. They take turns in blocks of pictures; the time is the process's CPU
time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LIMIT = 2.2
# What a row is about, height and width of the frame, size of the view.
CASES = (
    ("340 x 256 to 224", (256, 340), 224),
    ("340 x 256 to 112", (256, 340), 112),
    ("96 x 80 to 64", (80, 96), 64),
)


def _frame(height: int, width: int) -> NDArray[np.uint8]:
    """Soft shapes in colour with some noise on them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)


def _ours(frame: NDArray[np.uint8], size: int) -> Callable[[], object]:
    from vclr_lightning.data.transforms import PretrainTransform

    transform, rng = PretrainTransform(size=size), np.random.default_rng(0)
    return lambda: transform([frame], rng)


def _torchvision(frame: NDArray[np.uint8], size: int) -> Callable[[], object]:
    import random

    import torch
    from PIL import Image, ImageFilter
    from torchvision import transforms as tv

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    torch.manual_seed(0)
    random.seed(0)
    transform = tv.Compose(
        [
            tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
            tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            tv.RandomGrayscale(0.2),
            tv.RandomApply([blur], p=0.5),
            tv.RandomHorizontalFlip(),
            tv.PILToTensor(),
        ]
    )
    return lambda: transform(Image.fromarray(frame))


def measure(
    frame: NDArray[np.uint8], size: int, *, blocks: int, pictures: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds a picture of each block, ``(ours, torchvision's)``."""
    contestants = (_ours(frame, size), _torchvision(frame, size))
    seconds = np.empty((2, blocks + 1))
    for block in range(blocks + 1):
        for row, run in zip(seconds, contestants, strict=True):
            start = time.process_time()
            for _ in range(pictures):
                run()
            row[block] = (time.process_time() - start) / pictures
    return seconds[0, 1:], seconds[1, 1:]  # the first block warms up


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=40, help="pictures in a block")
    args = parser.parse_args(argv)

    import torch
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    torch.set_num_threads(1)
    console = Console()
    table = Table(title="Augmentation, CPU time a picture (medians)")
    for heading in ("frame to view", "torchvision on PIL", "ours", "faster", "at least"):
        table.add_column(heading, justify="right")
    reached = True
    for number, (name, shape, size) in enumerate(
        track(CASES, "augmentation", console=console, transient=True)
    ):
        ours, theirs = measure(_frame(*shape), size, blocks=args.blocks, pictures=args.pictures)
        ratio = float(np.median(theirs) / np.median(ours))
        limit = LIMIT if number == 0 else None  # the others are for information
        reached &= limit is None or ratio >= limit
        milliseconds = [f"{1000 * np.median(seconds):.2f} ms" for seconds in (theirs, ours)]
        table.add_row(name, *milliseconds, f"{ratio:.2f} x", f"{limit} x" if limit else "")
    console.print(table)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
