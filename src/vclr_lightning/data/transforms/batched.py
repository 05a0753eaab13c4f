"""The augmentation of pretraining for many clips at once, on any device.

Parameters travel with the batch as rows of integers, packed by the worker that draws them. The
arithmetic is that of :mod:`.color` and :mod:`.blur`, in integers, so results equal a worker's on
every device, bit by bit. The host knows which clips an operation applies to; nothing here
synchronises with the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.transfer import to_device
from vclr_lightning.data.transforms.augmentation import Augmentation, ColorOp
from vclr_lightning.data.transforms.blur import blur_taps
from vclr_lightning.data.transforms.color import LUMA, LUMA_256, fixed_point, hue_shift

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Columns: whether mirrored, whether greyscale, the first of the colour operations.
FLIP, GRAY, STEPS = 0, 1, 2

# Columns of a colour operation: its number, its amount as GAIN / 2**SHIFT, channel moves of the
# hue; and how many columns these are.
OP, GAIN, SHIFT, MOVES, STEP = 0, 1, 2, 3, 4

COLOR_OPS: tuple[ColorOp, ...] = get_args(ColorOp)  # numbered from 1; 0 is no operation

# Column: the blur's centre, followed by its sides and zeros; all are zero for no blur.
TAPS = STEPS + STEP * len(COLOR_OPS)

_AT_ONCE = 2**25  # values; bounds the memory that intermediate results take

_Operation = Callable[[Tensor, Tensor], Tensor]
"""Changes planes ``(N, 3, T, H, W)`` int16 by the parameters of each clip."""


def columns(largest_sigma: float) -> int:
    """Return the length of a row for blurs with a standard deviation up to ``largest_sigma``.

    Example:
        >>> columns(2.0) - TAPS
        7
    """
    radius = math.floor((math.sqrt(4 * largest_sigma**2 + 1) - 1) / 2)
    return TAPS + 3 * (radius + 1) + 1


def pack(augmentation: Augmentation, length: int) -> NDArray[np.int32]:
    """Return the parameters of :func:`augment_batch` for one clip, ``(length,)`` int32.

    Args:
        augmentation: of which the crop is not included.
        length: see :func:`columns`.

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


def augment_batch(clips: Tensor, parameters: Tensor) -> Tensor:
    """Finish the augmentation of cropped and resized clips: flip, colours, greyscale, blur.

    Args:
        clips: of one size, on any device.
        parameters: of each clip, from :func:`pack`, on the host.

    Shape:
        - clips: ``(N, 3, T, H, W)`` uint8; the result is a new tensor like it
        - parameters: ``(N, P)`` int32

    Example:
        >>> from vclr_lightning.data.transforms import Box
        >>> row = pack(Augmentation(Box(0, 0, 1, 2), flip=True), columns(2.0))
        >>> clips = torch.tensor([10, 20], dtype=torch.uint8).expand(1, 3, 1, 1, 2)
        >>> augment_batch(clips, torch.from_numpy(row)[None])[0, 0].tolist()
        [[[20, 10]]]
    """
    finished = torch.empty_like(clips, memory_format=torch.contiguous_format)
    part = max(1, _AT_ONCE // max(1, clips[:1].numel()))
    for start in range(0, len(clips), part):
        rows = slice(start, start + part)
        finished[rows] = _augment(clips[rows], parameters[rows])
    return finished


def _augment(clips: Tensor, parameters: Tensor) -> Tensor:
    planes = clips.to(torch.int16, memory_format=torch.contiguous_format)
    changes = list(_changes(parameters))
    table = to_device(parameters, clips.device)
    # All at once: every copy costs the host some time.
    chosen = to_device(torch.cat([rows for rows, _, _ in changes]), clips.device)
    each = torch.split(chosen, [len(rows) for rows, _, _ in changes])
    for rows, (_, operation, columns) in zip(each, changes, strict=True):
        if len(rows):
            planes.index_copy_(0, rows, operation(planes[rows], table[rows, columns]))
    return planes.to(torch.uint8)


def _changes(parameters: Tensor) -> Iterator[tuple[Tensor, _Operation, slice]]:
    """Yield which clips an operation applies to, and the columns of its parameters, in order."""
    none = slice(0, 0)
    yield _where(parameters[:, FLIP] != 0), _flip, none
    for start in range(STEPS, TAPS, STEP):
        for number, op in enumerate(COLOR_OPS, start=1):
            columns = slice(start, start + STEP)
            yield _where(parameters[:, start + OP] == number), _COLOR_OPS[op], columns
    yield _where(parameters[:, GRAY] != 0), _gray, none
    sides = parameters[:, TAPS + 1 :] != 0
    used = sides.any(dim=0).nonzero()
    if len(used):
        last = TAPS + 1 + int(used[-1])
        yield _where(sides.any(dim=1)), _blur, slice(TAPS, last + 1)


def _where(true: Tensor) -> Tensor:
    return true.nonzero()[:, 0]


def _column(rows: Tensor, column: int, dtype: torch.dtype = torch.int16) -> Tensor:
    """Return one parameter of each clip, ``(N, 1, 1, 1, 1)``."""
    return rows[:, column].to(dtype).view(-1, 1, 1, 1, 1)


def _mix(planes: Tensor, other: Tensor | int, rows: Tensor) -> Tensor:
    moved = (planes - other) * _column(rows, GAIN)
    moved >>= _column(rows, SHIFT)
    moved += planes
    return moved.clamp_(0, 255)


def _flip(planes: Tensor, _: Tensor) -> Tensor:
    return planes.flip(-1)


def _gray(planes: Tensor, _: Tensor) -> Tensor:
    return _luma(planes).expand_as(planes)


def _brightness(planes: Tensor, rows: Tensor) -> Tensor:
    return _mix(planes, 0, rows)


def _contrast(planes: Tensor, rows: Tensor) -> Tensor:
    red, green, blue = planes.sum(dim=(3, 4), dtype=torch.int64).unbind(1)
    total = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # (N, T)
    count = 65536 * planes[0, 0, 0].numel()
    mean = (2 * total + count) // (2 * count)  # rounded
    return _mix(planes, mean.to(torch.int16)[:, None, :, None, None], rows)


def _saturation(planes: Tensor, rows: Tensor) -> Tensor:
    return _mix(planes, _luma(planes), rows)


def _luma(planes: Tensor) -> Tensor:
    """Greyscale, ``(N, 3, T, H, W)`` to ``(N, 1, T, H, W)``."""
    red, green, blue = (planes[:, c : c + 1].to(torch.int32) for c in range(3))
    total = LUMA_256[0] * red + LUMA_256[1] * green + LUMA_256[2] * blue
    return ((total + 128) >> 8).to(torch.int16)


def _hue(planes: Tensor, rows: Tensor) -> Tensor:
    first = torch.arange(3, device=planes.device) - rows[:, MOVES, None]
    planes = planes[torch.arange(len(planes), device=planes.device)[:, None], first % 3]
    hi, lo = planes.amax(dim=1, keepdim=True), planes.amin(dim=1, keepdim=True)
    mid = planes.sum(dim=1, keepdim=True, dtype=torch.int16) - hi - lo
    shift = _column(rows, SHIFT, torch.int32)
    move = (hi - lo) * _column(rows, GAIN)
    move += ((1 << shift) >> 1).to(torch.int16)
    move >>= shift.to(torch.int16)
    before, after = planes.roll(1, dims=1), planes.roll(-1, dims=1)
    turned = torch.sign(before - after) * move
    turned += 2 * planes
    turned -= mid
    return torch.minimum(torch.maximum(turned, lo), hi)


def _blur(planes: Tensor, taps: Tensor) -> Tensor:
    pad = taps.shape[1] - 1
    center, *sides = (_column(taps, tap, torch.int32) for tap in range(pad + 1))
    for dim in (-2, -1):
        edge = planes.shape[dim]
        # Outside a picture is its mirror image, in which the edge pixels repeat.
        mirrored = torch.arange(-pad, edge + pad, device=planes.device) % (2 * edge)
        mirrored = torch.minimum(mirrored, 2 * edge - 1 - mirrored)
        padded = planes.index_select(dim, mirrored).to(torch.int32)
        total = padded.narrow(dim, pad, edge) * center
        for distance, tap in enumerate(sides, start=1):
            pair = padded.narrow(dim, pad - distance, edge) + padded.narrow(
                dim, pad + distance, edge
            )
            total += pair.mul_(tap)
        planes = ((total + 128) >> 8).to(torch.int16)
    return planes


_COLOR_OPS: dict[str, _Operation] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
