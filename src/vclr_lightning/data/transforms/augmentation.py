"""The random parameters of one augmented clip; no pixels here.

Their distribution is torchvision's: ``RandomResizedCrop``, ``ColorJitter``, and independent
probabilities for the rest (Section 4.2 of the paper, after MoCo v2). Each function draws a fixed
count of numbers, so that the value of one parameter never shifts another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

ColorOp = Literal["brightness", "contrast", "saturation", "hue"]

_TRIES = 10
_ORDERS: tuple[tuple[ColorOp, ...], ...] = tuple(
    permutations(("brightness", "contrast", "saturation", "hue"))
)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The random parameters of one clip, the same for all its frames.

    Attributes:
        crop: the part of the frame that becomes the view.
        jitter: colour operations in order, each with its factor (1 is the identity) or, for hue,
            its shift in turns; empty for none.
        gray: whether to convert to greyscale.
        sigma: standard deviation of the blur in pixels of the view; 0 for none.
        flip: whether to flip horizontally.
    """

    crop: Box
    jitter: tuple[tuple[ColorOp, float], ...] = ()
    gray: bool = False
    sigma: float = 0.0
    flip: bool = False


def sample_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """Draw a box by area and aspect ratio, as ``RandomResizedCrop`` does.

    The share of the frame's area is uniform in ``scale``, the logarithm of width / height uniform
    in that of ``ratio``. After ten boxes that do not fit, the largest central one of an allowed
    ratio is taken.

    Example:
        >>> import numpy as np
        >>> box = sample_crop(100, 100, np.random.default_rng(0), scale=(0.25, 0.25), ratio=(1, 1))
        >>> box.height, box.width
        (50, 50)
    """
    uniform: list[float] = rng.random(2 * _TRIES + 2).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[2 * i])
        aspect = math.exp(low + (high - low) * uniform[2 * i + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = uniform[-2] * (height - h + 1), uniform[-1] * (width - w + 1)
            return Box(int(top), int(left), h, w)
    w = max(1, min(width, round(height * ratio[1])))
    h = max(1, min(height, round(width / ratio[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def sample_jitter(
    rng: np.random.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> tuple[tuple[ColorOp, float], ...]:
    """Draw the colour operations in random order, as ``ColorJitter`` does.

    A factor is uniform in ``[max(0, 1 - strength), 1 + strength]``, the shift of the hue in
    ``[-hue, hue]``. An operation of strength 0 is left out.

    Example:
        >>> import numpy as np
        >>> strengths = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.1}
        >>> [(op, shift)] = sample_jitter(np.random.default_rng(0), **strengths)
        >>> op, -0.1 <= shift <= 0.1
        ('hue', True)
    """
    uniform: list[float] = rng.random(5).tolist()
    bounds: dict[ColorOp, tuple[float, float]] = {
        "brightness": (max(0.0, 1 - brightness), 1 + brightness),
        "contrast": (max(0.0, 1 - contrast), 1 + contrast),
        "saturation": (max(0.0, 1 - saturation), 1 + saturation),
        "hue": (-hue, hue),
    }
    amount = {
        op: low + (high - low) * u
        for (op, (low, high)), u in zip(bounds.items(), uniform[:4], strict=True)
    }
    order = _ORDERS[int(uniform[4] * len(_ORDERS))]
    return tuple((op, amount[op]) for op in order if bounds[op][0] < bounds[op][1])
