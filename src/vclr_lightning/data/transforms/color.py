"""Brightness, contrast, saturation, hue and greyscale on planes of small integers.

PIL mixes an image with a degenerate one (black, its mean grey, its own greyscale) and truncates the
result to integers. Here the same is done in 16-bit fixed point: the difference to the degenerate
image, at most 255, times a gain of at most 128, shifted back. A right shift rounds down, as PIL's
truncation does, and one instruction handles twice as many pixels as in float.

All functions take and return planes ``(3, H, W)`` int16 with values 0..255 and leave their
argument as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.transforms.augmentation import ColorOp

    Planes = NDArray[np.int16]

_BLACK, _WHITE = np.int16(0), np.int16(255)
# Weights of red, green and blue in the luma (ITU-R 601), of 65536 as in PIL, and of 256.
LUMA = (19595, 38470, 7471)
LUMA_256 = (77, 150, 29)
# PIL truncates the hue to 255ths of a turn: on average half of one is lost.
_LOST = 0.5 * 6 / 255


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
    """Mix with black; ``factor`` 0 is black, 1 the identity.

    Example:
        >>> adjust_brightness(np.full((3, 1, 1), 100, np.int16), 1.25).ravel().tolist()
        [125, 125, 125]
    """
    gain, shift = fixed_point(factor - 1)
    return _finish(planes, planes * gain, shift, factor)


def adjust_contrast(planes: Planes, factor: float) -> Planes:
    """Mix with the mean grey.

    Example:
        >>> adjust_contrast(np.array([[[100, 200]]] * 3, np.int16), 0.5)[0].tolist()
        [[125, 175]]
    """
    gain, shift = fixed_point(factor - 1)
    moved = planes - np.int16(mean_luma(planes) + 0.5)
    moved *= gain
    return _finish(planes, moved, shift, factor)


def adjust_saturation(planes: Planes, factor: float) -> Planes:
    """Mix with the greyscale.

    Example:
        >>> adjust_saturation(np.array([[[200]], [[100]], [[0]]], np.int16), 0.0).ravel().tolist()
        [119, 119, 119]
    """
    gain, shift = fixed_point(factor - 1)
    moved = planes - luma(planes)
    moved *= gain
    return _finish(planes, moved, shift, factor)


def luma(planes: Planes) -> Planes:
    """Return the greyscale, ``(H, W)``, rounded to nearest.

    Example:
        >>> luma(np.array([[[255]], [[0]], [[0]]], np.int16)).tolist()
        [[77]]
    """
    # Unsigned, because the weighted sum needs all 16 bits.
    red, green, blue = planes.view(np.uint16)
    of_red, of_green, of_blue = map(np.uint16, LUMA_256)
    total = red * of_red
    part = green * of_green
    total += part
    total += np.multiply(blue, of_blue, out=part)
    total += np.uint16(128)
    total >>= np.uint16(8)
    gray: Planes = total.view(np.int16)
    return gray


def mean_luma(planes: Planes) -> float:
    """Return the mean of the greyscale, from the sums of the three planes.

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
    return float(np.dot(sums, LUMA) / (65536 * planes[0].size))


def _finish(planes: Planes, moved: Planes, shift: int, factor: float) -> Planes:
    moved >>= shift
    moved += planes
    if factor > 1:  # a mixture of the two never leaves the range
        moved.clip(_BLACK, _WHITE, out=moved)
    return moved


def hue_shift(turns: float) -> tuple[int, float]:
    """Return a shift as rotations by one channel, and the rest in sixths of a turn.

    The rest is at most one sixth either way, and includes PIL's rounding loss.

    Example:
        >>> steps, left = hue_shift(0.5)
        >>> steps, round(left, 2)
        (1, 0.98)
    """
    sixths = math.trunc(turns * 255) * 6 / 255 - _LOST
    steps = round(sixths / 2)
    return steps, sixths - 2 * steps


def adjust_hue(planes: NDArray[np.int16], turns: float) -> NDArray[np.int16]:
    """Rotate the hue by a share of a full turn, as PIL does through HSV, without leaving RGB.

    In HSV, with ``hi >= mid >= lo`` the channels of a pixel in order of size, value and saturation
    are functions of ``hi`` and ``lo`` alone, so a rotation keeps both. Written out for a shift of
    ``d`` sixths of a turn, ``|d| <= 1``, all divisions and cases cancel, and each channel ``x``,
    followed by ``y`` and ``z`` in the circle red, green, blue, becomes

        ``clamp(2 x - mid + sign(z - y) d (hi - lo), lo, hi)``:

    the middle channel moves, and where it meets the end of its range another channel goes on. Two
    sixths of a turn rotate the channels by one.

    Example:
        >>> red = np.array([[[255]], [[0]], [[0]]], np.int16)
        >>> adjust_hue(red, 0.1).ravel().tolist()
        [255, 147, 0]
    """
    steps, left = hue_shift(turns)
    if steps:
        planes = np.roll(planes, steps, axis=0)
    gain, shift = fixed_point(left)

    red, green, blue = planes
    hi = np.maximum(red, green)
    np.maximum(hi, blue, out=hi)
    lo = np.minimum(red, green)
    np.minimum(lo, blue, out=lo)
    mid = red + green
    mid += blue
    mid -= hi
    mid -= lo

    move = hi - lo
    move *= gain
    move += (1 << shift) >> 1  # rounds; of the 255 shifts none exceeds 16 bits
    move >>= shift

    turned = np.empty_like(planes)
    np.subtract(blue, green, out=turned[0])
    np.subtract(red, blue, out=turned[1])
    np.subtract(green, red, out=turned[2])
    np.sign(turned, out=turned)
    turned *= move
    turned += planes
    turned += planes
    turned -= mid
    np.maximum(turned, lo, out=turned)
    np.minimum(turned, hi, out=turned)
    return turned


def contrast_around(planes: Planes, mean: NDArray[np.float64], factor: float) -> Planes:
    """Mix each channel of planes ``(T, 3, H, W)`` with its value in ``mean``, ``(3,)``.

    Example:
        >>> planes = np.array([100, 100, 200], np.int16).reshape(1, 3, 1, 1)
        >>> contrast_around(planes, np.array([100.0, 200.0, 100.0]), 0.5).ravel().tolist()
        [100, 150, 150]
    """
    gain, shift = fixed_point(factor - 1)
    moved = planes - np.rint(mean).astype(np.int16)[:, np.newaxis, np.newaxis]
    moved *= gain
    moved >>= shift
    moved += planes
    return moved.clip(0, 255, out=moved)


COLOR_OPS: dict[ColorOp, Callable[[NDArray[np.int16], float], NDArray[np.int16]]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
