"""The parameters of an augmentation as a row of whole numbers, in which they travel with a batch.

A row holds what :mod:`.batched` computes with: gains and shifts of fixed point, moves of the hue,
taps of the blur. They are made where the parameters are drawn, in the worker.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

import numpy as np

from vclr_lightning.data.transforms.augmentation import Augmentation, ColorOp
from vclr_lightning.data.transforms.blur import blur_taps
from vclr_lightning.data.transforms.color import fixed_point
from vclr_lightning.data.transforms.hue import hue_shift

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLIP, GRAY, STEPS = 0, 1, 2
"""Columns: whether mirrored, whether greyscale, the first of the colour operations."""

OP, GAIN, SHIFT, MOVES, STEP = 0, 1, 2, 3, 4
"""Columns of a colour operation: which, its amount as ``GAIN / 2**SHIFT``, moves of the hue; how
many columns that makes."""

COLOR_OPS: tuple[ColorOp, ...] = get_args(ColorOp)
"""By number; 0 is no operation, so the first is number 1."""

TAPS = STEPS + STEP * len(COLOR_OPS)
"""Column: the blur's centre, followed by its sides and zeros; all are zeros where there is none."""


def columns(largest_sigma: float) -> int:
    """Return the length of rows for blurs of standard deviations up to ``largest_sigma``.

    Example:
        >>> columns(2.0) - TAPS
        7
    """
    radius = math.floor((math.sqrt(4 * largest_sigma**2 + 1) - 1) / 2)
    return TAPS + 3 * (radius + 1) + 1


def pack(augmentation: Augmentation, length: int) -> NDArray[np.int32]:
    """Return the row of everything but the crop.

    Args:
        augmentation: the parameters.
        length: of the row; see :func:`columns`.

    Example:
        >>> from vclr_lightning.data.transforms import Box
        >>> row = pack(Augmentation(Box(0, 0, 8, 8), flip=True, sigma=1.0), columns(2.0))
        >>> row[[FLIP, GRAY]].tolist(), row[TAPS:].tolist()
        ([1, 0], [104, 61, 14, 1, 0, 0, 0])
    """
    row = np.zeros(length, np.int32)
    row[FLIP], row[GRAY] = augmentation.flip, augmentation.gray
    for number, (op, amount) in enumerate(augmentation.jitter):
        moves, amount = hue_shift(amount) if op == "hue" else (0, amount - 1)
        start = STEPS + STEP * number
        row[start : start + STEP] = (COLOR_OPS.index(op) + 1, *fixed_point(amount), moves)
    if augmentation.sigma:
        taps = blur_taps(augmentation.sigma)
        row[TAPS : TAPS + len(taps)] = taps
    return row
