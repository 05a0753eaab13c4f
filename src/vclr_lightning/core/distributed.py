"""Communication between the processes of a training; in a single process nothing is exchanged.

Tensors go through the default group; control messages through a gloo group on the CPU, so that they
never wait for the work queued on a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor

from vclr_lightning.core.errors import UserError

control_timeout: timedelta | None = None  # of control messages; None: torch's default
_control: tuple[Any, Any] | None = None


def world_size() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_rank_zero() -> bool:
    """Whether this is the first of all processes, even before they are connected.

    Example:
        >>> is_rank_zero()
        True
    """
    return int(getattr(rank_zero_only, "rank", 0)) == 0


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


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate the ranks' tensors as :func:`gather` does, with gradient.

    For losses that compare the videos of a batch with each other: each rank computes the loss of
    its own rows against those of all ranks. DDP averages the ranks' gradients, and the sum over
    all losses that read a row flows back into it, so the gradient is that of one process with the
    whole batch. Labels of own rows start at ``rank() * len(x)``.

    Shape:
        ``(n, ...)``, the same on every rank, to ``(world_size * n, ...)``.

    Example:
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> gather_with_gradient(x).sum().backward()
        >>> x.grad.sum()
        tensor(6.)
    """
    return x if world_size() == 1 else cast(Tensor, _Gather.apply(x))


class _Gather(torch.autograd.Function):
    # torch.distributed.nn.functional.all_gather returns wrong gradients with gloo.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


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
    """Set each tensor to its mean over the ranks, all of one type in one collective."""
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
    """Send ``send[r]`` consecutive rows of ``x`` to each rank r; return ``receive[r]`` from each.

    Shape:
        ``(sum(send), ...)`` to ``(sum(receive), ...)``.
    """
    if world_size() == 1:
        return x.detach()
    out = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(out, x.detach().contiguous(), list(receive), list(send))
    return out


def max_over_ranks(value: int) -> int:
    """Return the largest ``value`` of all ranks; every rank has to call it at the same point.

    Example:
        >>> max_over_ranks(15)
        15
    """
    if world_size() == 1:
        return value
    largest = torch.tensor([int(value)])
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=_control_group())
    return int(largest.item())


def gather_objects(value: Any) -> list[Any]:
    """Return ``value`` of every rank, in rank order; every rank has to call it at the same point.

    Example:
        >>> gather_objects([3])
        [[3]]
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control_group())
    return values


def _control_group() -> Any:
    global _control
    world = dist.group.WORLD
    if _control is None or _control[0] is not world:
        gloo = dist.get_backend() == "gloo"
        own = world if gloo else dist.new_group(backend="gloo", timeout=control_timeout)
        _control = (world, own)
    return _control[1]


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise on all ranks what fails in the block on any of them; every rank has to enter it.

    A rank that went on alone would wait for one that is gone.

    Raises:
        UserError: an ``OSError`` of this rank, or any error of another rank.

    Example:
        >>> with failing_together():
        ...     raise OSError(28, "No space left on device", "a.ckpt")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: cannot write a.ckpt: No space left on device
    """
    failure: Exception | None = None
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failure = UserError(f"cannot write {where}{error.strerror or error}")
    except Exception as error:
        failure = error
    message = None if failure is None else str(failure) or type(failure).__name__
    messages = [m for m in gather_objects(message) if m is not None]
    if failure is not None:
        raise failure
    if messages:
        raise UserError(messages[0])
