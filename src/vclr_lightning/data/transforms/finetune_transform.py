"""The augmentation of training with labels: random crop and flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Augmentation, Box, sample_crop
from vclr_lightning.data.transforms.geometry import resized_crop, short_edge_size
from vclr_lightning.data.transforms.pretrain_transform import augment

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Crop(Protocol):
    """Draws a box of a frame of ``height`` x ``width`` pixels."""

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box: ...


@dataclass(frozen=True, kw_only=True)
class AreaCrop:
    """Draws a box by area and aspect ratio, as ``RandomResizedCrop`` does.

    Args:
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest width / height.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> AreaCrop(scale=(1, 1), ratio=(1, 1))(64, 64, np.random.default_rng(0))
        Box(top=0, left=0, height=64, width=64)
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", checks.pair("scale", self.scale, above=0, high=1))
        ratio = checks.pair("ratio", self.ratio, above=0, high=float("inf"))
        object.__setattr__(self, "ratio", ratio)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        return sample_crop(height, width, rng, scale=self.scale, ratio=self.ratio)


# Positions of a crop in quarters of the free space: (down, right).
_FIVE = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
_THIRTEEN = (*_FIVE, (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))
_PLACES = {5: _FIVE, 13: _THIRTEEN}


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """Draws a box of few sizes at few places (TSN).

    Height and width are shares ``scales`` of the frame's shorter edge, at most ``max_gap`` apart in
    that list; all such pairs are equally likely, and so are the positions: the four corners and
    the centre, or with 13 also the middles of the edges and the centres of the quarters.

    Args:
        scales: shares of the shorter edge.
        max_gap: how far height and width may be apart, in steps of ``scales``.
        positions: 5 or 13.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> MultiScaleCrop(scales=(1,))(100, 100, np.random.default_rng(0))
        Box(top=0, left=0, height=100, width=100)
    """

    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66)
    max_gap: int = 1
    positions: int = 5

    def __post_init__(self) -> None:
        if not self.scales:
            raise UserError("scales of MultiScaleCrop is empty; give shares such as 1, 0.875")
        scales = tuple(checks.number("scales", scale, 0.01, 1) for scale in self.scales)
        object.__setattr__(self, "scales", scales)
        checks.pixels("max_gap", self.max_gap, low=0)
        if self.positions not in _PLACES:
            raise UserError(f"positions={self.positions} of MultiScaleCrop must be 5 or 13")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        edges = [max(1, int(min(height, width) * scale)) for scale in self.scales]
        numbers = range(len(edges))
        sizes = [(i, j) for i, j in product(numbers, numbers) if abs(i - j) <= self.max_gap]
        i, j = sizes[int(rng.integers(len(sizes)))]
        down, right = _PLACES[self.positions][int(rng.integers(self.positions))]
        top, left = (height - edges[i]) // 4 * down, (width - edges[j]) // 4 * right
        return Box(top, left, edges[i], edges[j])


@dataclass(frozen=True, kw_only=True)
class FinetuneTransform:
    """Resize, random crop, horizontal flip: one draw for a whole clip (Appendix of the paper).

    Args:
        size: height and width of the result in pixels.
        resize: new length of the shorter edge of the frame before cropping; ``None``: the frame is
            cropped at its own size.
        crop: draws the part of the frame that becomes the picture.
        flip_p: chance of the flip; 0 where classes tell left from right.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> transform = FinetuneTransform(size=112, resize=128)
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> transform([frame, frame], np.random.default_rng(0)).shape
        torch.Size([3, 2, 112, 112])
    """

    size: int = 224
    resize: int | None = 256
    crop: Crop = field(default_factory=AreaCrop)
    flip_p: float = 0.5

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "size", checks.pixels("size", self.size))
        if self.resize is not None:
            put(self, "resize", checks.pixels("resize", self.resize))
        put(self, "flip_p", checks.number("flip_p", self.flip_p, 0, 1))

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        height, width = checks.frame_size(clip)
        if self.resize is not None and min(height, width) != self.resize:
            whole = Box(0, 0, height, width)
            height, width = short_edge_size(height, width, self.resize)
            clip = [
                resized_crop(frame, whole, height, width).permute(1, 2, 0).numpy() for frame in clip
            ]
        crop = self.crop(height, width, rng)
        flip = bool(rng.random() < self.flip_p)
        return augment(clip, Augmentation(crop, flip=flip), self.size)
