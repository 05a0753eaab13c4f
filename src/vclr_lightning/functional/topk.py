"""A running top-k of each row whose columns come in blocks; ties are ordered by column."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# A value and its column packed into one integer, which sorts by value, then by smaller column: a
# sortable image of the float above 32 bits of column.
_LOW = 0xFFFFFFFF
_SIGN = 0x7FFFFFFF


def encode_keys(values: Tensor, columns: Tensor) -> Tensor:
    """Return int64 keys that sort, descending, by value, then by ascending column.

    Args:
        values: float32, no NaN.
        columns: int64, from 0 to 2^32 - 2; -1 for none, which comes last among equal values.

    Example:
        >>> keys = encode_keys(torch.tensor([0.5, -1.0, 0.5]), torch.tensor([7, 0, 3]))
        >>> decode_keys(keys.sort(descending=True).values)[1].tolist()
        [3, 7, 0]
    """
    bits = values.contiguous().view(torch.int32).long()
    # The bits of negative floats sort the other way round.
    return ((bits ^ ((bits >> 31) & _SIGN)) << 32) | ((_LOW - columns) & _LOW)


def decode_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values and columns that :func:`encode_keys` was given."""
    high = keys >> 32
    values = (high ^ ((high >> 31) & _SIGN)).int().view(torch.float32)
    columns = _LOW - (keys & _LOW)
    return values, columns.masked_fill(columns == _LOW, -1)


def no_keys(rows: int, k: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return empty keys ``(rows, k)``: minus infinity, column -1."""
    empty = encode_keys(torch.tensor(-torch.inf), torch.tensor(-1))
    return empty.to(device).expand(rows, k).clone()


def merge_top(best: Tensor, values: Tensor, first: int) -> Tensor:
    """Return the top ``k`` of those found so far and a block of further columns.

    Only values above the ``k``-th found so far are sorted, and those get rare: about k / j values
    of a row in the j-th of equally wide blocks.

    Args:
        best: keys found so far, descending.
        values: float32, of later columns; minus infinity is never taken.
        first: index of the block's first column.

    Shape: - best: ``(B, k)``; values: ``(B, W)``; returns ``(B, k)``, descending.

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


# On the CPU, NumPy vectorises these; torch handles one value at a time.


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
