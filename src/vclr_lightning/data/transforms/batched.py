"""The augmentation of pretraining for many clips at once, on whatever device they are.

The arithmetic is that of :mod:`.color`, :mod:`.hue` and :mod:`.blur`, in whole numbers; so results
are the same to the last bit as those of a worker, on every device. Which clips an operation
applies to is known on the host, and nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vclr_lightning.data.transforms import packing

_AT_ONCE = 2**25  # values; bounds the memory that intermediate results take

_LUMA = (19595, 38470, 7471)  # of 65536
_LUMA_256 = (77, 150, 29)

_Operation = Callable[[Tensor, Tensor], Tensor]
"""Changes planes ``(N, 3, T, H, W)`` int16 by the parameters of each clip."""


def augment_batch(clips: Tensor, parameters: Tensor) -> Tensor:
    """Finish clips that were cropped and resized: flip, colours, greyscale, blur.

    Args:
        clips: of one size, on any device.
        parameters: of each clip, from :func:`~vclr_lightning.data.transforms.packing.pack`, on
            the host.

    Shape:
        - clips: ``(N, 3, T, H, W)`` uint8; the result is a new tensor like it
        - parameters: ``(N, P)`` int32

    Example:
        >>> from vclr_lightning.data.transforms import Augmentation, Box
        >>> row = packing.pack(Augmentation(Box(0, 0, 1, 2), flip=True), packing.columns(2.0))
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
    # A copy of pageable memory is not waited for: it was read when the call returns.
    table = parameters.to(clips.device, non_blocking=True)
    planes = clips.to(torch.int16, memory_format=torch.contiguous_format)

    def change(where: Tensor, operation: _Operation, columns: slice = slice(0, 0)) -> None:
        rows = where.nonzero()[:, 0]
        if len(rows):
            rows = rows.to(clips.device, non_blocking=True)
            planes.index_copy_(0, rows, operation(planes[rows], table[rows, columns]))

    change(parameters[:, packing.FLIP] != 0, _flip)
    for start in range(packing.STEPS, packing.TAPS, packing.STEP):
        for number, op in enumerate(packing.COLOR_OPS, start=1):
            where = parameters[:, start + packing.OP] == number
            change(where, _COLOR_OPS[op], slice(start, start + packing.STEP))
    change(parameters[:, packing.GRAY] != 0, _gray)
    sides = parameters[:, packing.TAPS + 1 :] != 0
    used = sides.any(dim=0).nonzero()
    if len(used):
        last = packing.TAPS + 1 + int(used[-1])
        change(sides.any(dim=1), _blur, slice(packing.TAPS, last + 1))
    return planes.to(torch.uint8)


def _column(rows: Tensor, column: int, dtype: torch.dtype = torch.int16) -> Tensor:
    """Return one parameter of each clip, ``(N, 1, 1, 1, 1)``."""
    return rows[:, column].to(dtype).view(-1, 1, 1, 1, 1)


def _mix(planes: Tensor, other: Tensor | int, rows: Tensor) -> Tensor:
    moved = (planes - other) * _column(rows, packing.GAIN)
    moved >>= _column(rows, packing.SHIFT)
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
    total = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue  # (N, T)
    count = 65536 * planes[0, 0, 0].numel()
    mean = (2 * total + count) // (2 * count)  # rounded
    return _mix(planes, mean.to(torch.int16)[:, None, :, None, None], rows)


def _saturation(planes: Tensor, rows: Tensor) -> Tensor:
    return _mix(planes, _luma(planes), rows)


def _luma(planes: Tensor) -> Tensor:
    """Greyscale, ``(N, 3, T, H, W)`` to ``(N, 1, T, H, W)``."""
    red, green, blue = (planes[:, c : c + 1].to(torch.int32) for c in range(3))
    total = _LUMA_256[0] * red + _LUMA_256[1] * green + _LUMA_256[2] * blue
    return ((total + 128) >> 8).to(torch.int16)


def _hue(planes: Tensor, rows: Tensor) -> Tensor:
    first = torch.arange(3, device=planes.device) - rows[:, packing.MOVES, None]
    planes = planes[torch.arange(len(planes), device=planes.device)[:, None], first % 3]
    hi, lo = planes.amax(dim=1, keepdim=True), planes.amin(dim=1, keepdim=True)
    mid = planes.sum(dim=1, keepdim=True, dtype=torch.int16) - hi - lo
    shift = _column(rows, packing.SHIFT, torch.int32)
    move = (hi - lo) * _column(rows, packing.GAIN)
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
