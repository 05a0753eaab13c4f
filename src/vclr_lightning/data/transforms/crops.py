"""Which part of a frame a random crop takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box, sample_crop
from vclr_lightning.data.transforms.geometry import center_box

if TYPE_CHECKING:
    import numpy as np

Fallback = Literal["center", "whole"]


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
        >>> import numpy as np
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


@dataclass(frozen=True, kw_only=True)
class UniformAspectCrop:
    """Draws a box by area and aspect ratio, the ratio itself uniform, as CoCLR and DPC do.

    The area is a uniform share of the frame's, width / height uniform in ``ratio``, and the two are
    swapped with chance 1/2. :class:`AreaCrop` has a uniform logarithm of the ratio instead.

    Args:
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest width / height before the swap.
        tries: boxes drawn until one fits into the frame.
        fallback: what is taken if none fits: the largest square in the ``"center"`` (DPC), or the
            ``"whole"`` frame, whose aspect ratio is then lost (CoCLR, with a single try).

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> import numpy as np
        >>> crop = UniformAspectCrop(scale=(1, 1), ratio=(2, 2), tries=1, fallback="whole")
        >>> crop(64, 64, np.random.default_rng(0))
        Box(top=0, left=0, height=64, width=64)
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    tries: int = 10
    fallback: Fallback = "center"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "scale", checks.pair("scale", self.scale, above=0, high=1))
        put(self, "ratio", checks.pair("ratio", self.ratio, above=0, high=float("inf")))
        put(self, "tries", checks.pixels("tries", self.tries))
        if self.fallback not in get_args(Fallback):
            raise UserError(f"fallback={self.fallback!r} is unknown; take center or whole")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        uniform = rng.random((self.tries, 3)).tolist()
        down, right = rng.random(2).tolist()
        for share, shape, coin in uniform:
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * share)
            aspect = self.ratio[0] + (self.ratio[1] - self.ratio[0]) * shape
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            w, h = (h, w) if coin < 1 / 2 else (w, h)
            if 0 < w <= width and 0 < h <= height:
                return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)
        if self.fallback == "whole":
            return Box(0, 0, height, width)
        return center_box(height, width, min(height, width))


@dataclass(frozen=True, kw_only=True)
class FixedCrop:
    """Draws the place of a square of ``size`` pixels of the frame; of a smaller frame, all it has.

    Args:
        size: height and width in pixels.

    Raises:
        UserError: ``size`` is not a positive whole number.

    Example:
        >>> import numpy as np
        >>> FixedCrop(size=112)(112, 100, np.random.default_rng(0))
        Box(top=0, left=0, height=112, width=100)
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checks.pixels("size", self.size))

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        h, w = min(self.size, height), min(self.size, width)
        down, right = rng.random(2).tolist()
        return Box(int(down * (height - h + 1)), int(right * (width - w + 1)), h, w)


@dataclass(frozen=True, kw_only=True)
class CenterCrop(FixedCrop):
    """Takes the central square of ``size`` pixels; of a smaller frame, the largest it has.

    Args:
        size: height and width in pixels.

    Raises:
        UserError: ``size`` is not a positive whole number.

    Example:
        >>> import numpy as np
        >>> CenterCrop(size=112)(120, 100, np.random.default_rng(0))
        Box(top=10, left=0, height=100, width=100)
    """

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        return center_box(height, width, min(self.size, height, width))


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
        >>> import numpy as np
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
