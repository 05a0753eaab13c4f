"""The largest values of each row while their columns come in blocks; ties by column."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# A value and its column as one number whose order is that of the values, the larger first, then
# that of the columns, the smaller first: a sortable image of the float above 32 bits of column.
_LOW = 0xFFFFFFFF
_SIGN = 0x7FFFFFFF


def encode_keys(values: Tensor, columns: Tensor) -> Tensor:
    """Return keys that sort by value, descending, and among equal values by column, ascending.

    Args:
        values: float32, no NaN.
        columns: int64, from 0 to 2^32 - 2; -1 for no column, which comes last of its value.

    Shape:
        both ``(...)``; returns int64 ``(...)``.

    Example:
        >>> keys = encode_keys(torch.tensor([0.5, -1.0, 0.5]), torch.tensor([7, 0, 3]))
        >>> decode_keys(keys.sort(descending=True).values)[1].tolist()
        [3, 7, 0]
    """
    bits = values.contiguous().view(torch.int32).long()
    # Negative floats are ordered the other way round than their bits.
    return ((bits ^ ((bits >> 31) & _SIGN)) << 32) | ((_LOW - columns) & _LOW)


def decode_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values and columns that :func:`encode_keys` was given."""
    high = keys >> 32
    values = (high ^ ((high >> 31) & _SIGN)).int().view(torch.float32)
    columns = _LOW - (keys & _LOW)
    return values, columns.masked_fill(columns == _LOW, -1)


def no_keys(rows: int, k: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return keys ``(rows, k)`` of nothing yet: minus infinity, column -1."""
    empty = encode_keys(torch.tensor(-torch.inf), torch.tensor(-1))
    return empty.to(device).expand(rows, k).clone()


def merge_top(best: Tensor, values: Tensor, first: int) -> Tensor:
    """Return the largest ``k`` of what was found so far and of a block of further columns.

    Only values above the ``k``-th found so far are sorted, and those get rare: of the j-th of
    equally wide blocks, about k / j values of a row.

    Args:
        best: keys found so far, descending.
        values: float32, of columns that come after those that were seen before; minus infinity
            is never taken.
        first: number of the block's first column.

    Shape:
        - best: ``(B, k)``; values: ``(B, W)``; returns ``(B, k)``, descending.

    Example:
        >>> best = merge_top(no_keys(1, 2), torch.tensor([[0.1, 0.9, 0.3]]), 0)
        >>> best = merge_top(best, torch.tensor([[0.2, 0.5, 0.9]]), 3)
        >>> decode_keys(best)[1].tolist()
        [[1, 5]]
    """
    k = best.shape[1]
    least = decode_keys(best[:, -1:])[0]
    if values.shape[1] > k and bool(least.isneginf().all()):  # the first block
        least = torch.nextafter(_kth_largest(values, k), least)
    rows, columns = _above(values, least)
    if not len(rows):
        return best
    keys = encode_keys(values[rows, columns], columns + first)
    counts = torch.bincount(rows, minlength=len(best))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    fresh = no_keys(len(best), int(counts.max()), device=best.device)
    fresh[rows, place] = keys
    return _largest(torch.cat([best, fresh], dim=1), k)


# On the CPU NumPy does these with vector instructions, torch one value at a time.


def _kth_largest(values: Tensor, k: int) -> Tensor:
    if values.is_cpu:
        ordered = np.partition(values.numpy(), -k, axis=1)
        return torch.from_numpy(ordered[:, -k, None])
    return values.topk(k, dim=1).values[:, -1:]


def _above(values: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    if values.is_cpu:
        flat = torch.from_numpy(np.flatnonzero(values.numpy() > least.numpy()))
        rows = flat // values.shape[1]
        return rows, flat - rows * values.shape[1]
    rows, columns = (values > least).nonzero(as_tuple=True)
    return rows, columns


def _largest(keys: Tensor, k: int) -> Tensor:
    if keys.is_cpu:
        ordered = np.sort(keys.numpy(), axis=1)
        return torch.from_numpy(ordered[:, : -k - 1 : -1].copy())
    return keys.topk(k, dim=1).values
