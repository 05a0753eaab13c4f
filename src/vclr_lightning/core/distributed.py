"""Collectives of equal-sized tensors, which do nothing in a single process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Concatenate the ranks' tensors along the first dimension, in rank order, without gradient.

    Shape:
        ``(n, ...)``, the same on every rank, to ``(world_size * n, ...)``.
    """
    if world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


@torch.no_grad()
def average(x: Tensor) -> Tensor:
    """Return the mean of the ranks' tensors, without gradient."""
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


@torch.no_grad()
def average_in_place(tensors: Sequence[Tensor]) -> None:
    """Set each tensor to its mean over the ranks, all of one type in one collective.

    Raises:
        RuntimeError: from the collective, if the ranks' tensors differ in number or size.
    """
    if world_size() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.dtype == dtype]
        means = average(torch.cat([tensor.flatten() for tensor in some]))
        parts = torch.split(means, [tensor.numel() for tensor in some])
        for tensor, mean in zip(some, parts, strict=True):
            tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def exchange(x: Tensor, *, send: Sequence[int], receive: Sequence[int]) -> Tensor:
    """Send consecutive rows of ``x`` to the ranks, and return what they sent here, by rank.

    Args:
        x: rows for rank 0, then for rank 1, and so on.
        send: how many rows go to each rank.
        receive: how many rows come from each rank.

    Shape:
        ``(sum(send), ...)`` to ``(sum(receive), ...)``.
    """
    if world_size() == 1:
        return x.detach()
    out = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(out, x.detach().contiguous(), list(receive), list(send))
    return out
