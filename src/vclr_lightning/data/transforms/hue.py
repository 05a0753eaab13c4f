"""Rotation of the hue without leaving RGB.

In HSV a picture is turned to hue, saturation and value, and back. With ``hi >= mid >= lo`` the
channels of a pixel in order of size, value and saturation are functions of ``hi`` and ``lo``
alone, so a rotation keeps both. Written out for a shift of ``d`` sixths of a turn, ``|d| <= 1``,
all divisions and cases cancel, and each channel ``x``, followed by ``y`` and ``z`` in the circle
red, green, blue, becomes

    ``clamp(2 x - mid + sign(z - y) d (hi - lo), lo, hi)``:

the middle channel moves, and where it meets the end of its range another channel goes on. Two
sixths of a turn are the circle moved on by one channel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.transforms.color import fixed_point

if TYPE_CHECKING:
    from numpy.typing import NDArray

# PIL keeps the hue in whole 255ths of a turn and cuts off: on average half of one is lost.
_LOST = 0.5 * 6 / 255


def hue_shift(turns: float) -> tuple[int, float]:
    """Return a shift as moves of the circle by one channel, and what is left in sixths of a turn.

    What is left is at most one sixth either way. PIL's loss is part of it.

    Example:
        >>> steps, left = hue_shift(0.5)
        >>> steps, round(left, 2)
        (1, 0.98)
    """
    sixths = math.trunc(turns * 255) * 6 / 255 - _LOST
    steps = round(sixths / 2)
    return steps, sixths - 2 * steps


def adjust_hue(planes: NDArray[np.int16], turns: float) -> NDArray[np.int16]:
    """Rotate the hue by a share of a full turn, as PIL does through HSV.

    Shape:
        - planes: ``(3, H, W)`` int16 with values 0..255; the result is a new array like it

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
