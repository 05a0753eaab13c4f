"""Pictures of many kinds, and PIL's augmentation with given parameters to compare with."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torchvision.transforms import functional as tv

from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.transforms import Augmentation

Picture = NDArray[np.uint8]


def _clouds(height: int, width: int, seed: int) -> Picture:
    """Colours whose spectrum falls off as that of photographs does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    channels = []
    for _ in range(3):
        spectrum = np.fft.fft2(rng.normal(size=(height, width))) / frequency
        field = np.fft.ifft2(spectrum).real
        channels.append((field - field.mean()) / (field.std() + 1e-9))
    mixed = np.stack(channels, -1) @ np.array([[1.0, 0.8, 0.7], [0.3, 0.5, 0.2], [0.1, 0.1, 0.5]])
    return np.clip(mixed * 50 + 120, 0, 255).astype(np.uint8)


def _rainbow(height: int, width: int) -> Picture:
    """All hues from left to right, grey to pure from top to bottom."""
    hue = np.broadcast_to(np.linspace(0, 255, width)[None], (height, width))
    saturation = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    hsv = np.stack([hue, saturation, np.full((height, width), 220.0)], -1).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def _edges(height: int, width: int) -> Picture:
    """Black and white squares."""
    rows, columns = np.indices((height, width)) // 9
    return np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _noise(height: int, width: int) -> Picture:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


PICTURES: dict[str, Callable[[], Picture]] = {
    "clouds": lambda: _clouds(256, 340, 0),
    "clouds, odd": lambda: _clouds(239, 317, 1),
    "clouds, small": lambda: _clouds(45, 67, 2),
    "clouds, tiny": lambda: _clouds(7, 5, 3),
    "rainbow": lambda: _rainbow(240, 320),
    "edges": lambda: _edges(120, 160),
    "noise": lambda: _noise(128, 171),
    "grey": lambda: np.full((64, 48, 3), 93, np.uint8),
    "black": lambda: np.zeros((32, 32, 3), np.uint8),
    "white": lambda: np.full((32, 32, 3), 255, np.uint8),
}


@pytest.fixture(params=PICTURES)
def picture(request: pytest.FixtureRequest) -> Picture:
    """One picture ``(H, W, 3)``, read-only."""
    return _made(request.param)


@cache
def _made(name: str) -> Picture:
    made = PICTURES[name]()
    made.flags.writeable = False
    return made


@pytest.fixture(scope="session")
def _photo() -> Picture:
    return _clouds(256, 340, 4)


@pytest.fixture
def photo(_photo: Picture) -> Picture:
    return _photo.copy()


@pytest.fixture(scope="session")
def real_frames() -> list[Picture]:
    """A frame of each of some real videos."""
    root = os.environ.get("VCLR_TEST_DATA")
    if not root or not (Path(root) / "clips").is_dir():
        pytest.skip("real videos are looked for in $VCLR_TEST_DATA/clips; there are none")
    frames = []
    for path in sorted((Path(root) / "clips").glob("torchvision__*"))[:8]:
        with open_stream(path) as (container, _):
            frames.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    return frames


def pil_augment(frame: Picture, augmentation: Augmentation, size: int) -> Picture:
    """What torchvision's transforms do to a PIL picture, with these parameters."""
    crop = augmentation.crop
    image = Image.fromarray(frame)
    image = tv.resized_crop(image, crop.top, crop.left, crop.height, crop.width, [size, size])
    for op, amount in augmentation.jitter:
        image = getattr(tv, f"adjust_{op}")(image, amount)
    if augmentation.gray:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if augmentation.sigma:
        image = image.filter(ImageFilter.GaussianBlur(augmentation.sigma))
    if augmentation.flip:
        image = tv.hflip(image)
    return np.asarray(image)


@pytest.fixture(name="pil_augment", scope="session")
def _pil_augment() -> Callable[[Picture, Augmentation, int], Picture]:
    return pil_augment


@pytest.fixture(scope="session")
def mean_error() -> Callable[[Picture, Picture], float]:
    """Mean absolute difference of two pictures, in 255ths."""

    def error(one: Picture, other: Picture) -> float:
        assert one.shape == other.shape
        return float(np.abs(one.astype(float) - other.astype(float)).mean())

    return error
