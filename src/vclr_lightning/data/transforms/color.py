"""Brightness, contrast, saturation and greyscale on planes of small integers.

PIL mixes a picture with a degenerate one (black, its mean grey, its own greyscale) and cuts the
result off to whole numbers. Here the same is done in 16-bit fixed point: the difference to the
degenerate picture, at most 255, times a gain of at most 128, shifted back. A right shift rounds
down, as PIL's cut does, and one instruction handles twice as many pixels as in float.

All functions take and return planes ``(3, H, W)`` int16 with values 0..255 and leave their
argument as it was.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Planes = NDArray[np.int16]

_BLACK, _WHITE = np.int16(0), np.int16(255)
# Shares of red, green and blue in the luma (ITU-R 601), of 65536 as in PIL, and of 256.
_LUMA = (19595, 38470, 7471)
_LUMA_256 = (np.uint16(77), np.uint16(150), np.uint16(29))


def fixed_point(value: float) -> tuple[int, int]:
    """Return gain and shift with ``value`` about ``gain / 2**shift`` and ``|gain| <= 128``.

    The product of such a gain and a difference of two pixels fits 16 bits.

    Example:
        >>> fixed_point(-0.4)
        (-102, 8)
    """
    shift = min(15, max(0, 7 - math.frexp(value)[1]))
    return round(value * (1 << shift)), shift


def adjust_brightness(planes: Planes, factor: float) -> Planes:
    """Mix with black; ``factor`` 0 is black, 1 the picture.

    Example:
        >>> adjust_brightness(np.full((3, 1, 1), 100, np.int16), 1.25).ravel().tolist()
        [125, 125, 125]
    """
    gain, shift = fixed_point(factor - 1)
    return _finish(planes, planes * gain, shift, factor)


def adjust_contrast(planes: Planes, factor: float) -> Planes:
    """Mix with the picture's mean grey.

    Example:
        >>> adjust_contrast(np.array([[[100, 200]]] * 3, np.int16), 0.5)[0].tolist()
        [[125, 175]]
    """
    gain, shift = fixed_point(factor - 1)
    moved = planes - np.int16(mean_luma(planes) + 0.5)
    moved *= gain
    return _finish(planes, moved, shift, factor)


def adjust_saturation(planes: Planes, factor: float) -> Planes:
    """Mix with the picture's greyscale.

    Example:
        >>> adjust_saturation(np.array([[[200]], [[100]], [[0]]], np.int16), 0.0).ravel().tolist()
        [119, 119, 119]
    """
    gain, shift = fixed_point(factor - 1)
    moved = planes - luma(planes)
    moved *= gain
    return _finish(planes, moved, shift, factor)


def luma(planes: Planes) -> Planes:
    """Greyscale of a picture, rounded to the nearest.

    Shape:
        - planes: ``(3, H, W)``; result ``(H, W)``

    Example:
        >>> luma(np.array([[[255]], [[0]], [[0]]], np.int16)).tolist()
        [[77]]
    """
    # Unsigned, because a sum of shares 256 times a pixel needs all 16 bits.
    red, green, blue = planes.view(np.uint16)
    total = red * _LUMA_256[0]
    part = green * _LUMA_256[1]
    total += part
    total += np.multiply(blue, _LUMA_256[2], out=part)
    total += np.uint16(128)
    total >>= np.uint16(8)
    gray: Planes = total.view(np.int16)
    return gray


def mean_luma(planes: Planes) -> float:
    """Mean of the greyscale over the picture, from the sums of the three planes.

    Example:
        >>> mean_luma(np.full((3, 4, 4), 100, np.int16))
        100.0
    """
    sums = np.zeros(3, np.int64)
    # 256 rows of pixels still add up in 16 bits, which is several times faster than in 64.
    for row in range(0, planes.shape[1], 256):
        rows = planes[:, row : row + 256].view(np.uint16)
        columns = np.add.reduce(rows, axis=1, dtype=np.uint16)
        sums += columns.sum(axis=1, dtype=np.int64)
    return float(np.dot(sums, _LUMA) / (65536 * planes[0].size))


def _finish(planes: Planes, moved: Planes, shift: int, factor: float) -> Planes:
    moved >>= shift
    moved += planes
    if factor > 1:  # a mixture of the two never leaves the range
        moved.clip(_BLACK, _WHITE, out=moved)
    return moved
