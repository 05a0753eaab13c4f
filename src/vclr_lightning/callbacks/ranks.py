"""Agreement between ranks on small facts, without touching the device's queue of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_only

from vclr_lightning.core.errors import UserError

timeout: timedelta | None = None  # of control messages; None for torch's own
_control: tuple[Any, Any] | None = None


def is_first() -> bool:
    """Whether this is the first of all processes, also before they are connected.

    Example:
        >>> is_first()
        True
    """
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _group() -> Any:
    """The gloo group that carries control messages; an accelerator's own would block on it."""
    global _control
    world = dist.group.WORLD
    if _control is None or _control[0] is not world:
        gloo = dist.get_backend() == "gloo"
        own = world if gloo else dist.new_group(backend="gloo", timeout=timeout)
        _control = (world, own)
    return _control[1]


def any_rank(value: bool) -> bool:
    """Whether ``value`` is true on any rank; every rank has to call it at the same point.

    Example:
        >>> any_rank(True), any_rank(False)
        (True, False)
    """
    if not _distributed():
        return value
    flag = torch.tensor([int(value)])
    dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=_group())
    return bool(flag.item())


def max_rank(value: int) -> int:
    """The largest ``value`` of all ranks; every rank has to call it at the same point.

    Example:
        >>> max_rank(15)
        15
    """
    if not _distributed():
        return value
    largest = torch.tensor([value])
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=_group())
    return int(largest.item())


def gather_objects(value: Any) -> list[Any]:
    """``value`` of every rank, in rank order; every rank has to call it at the same point.

    Example:
        >>> gather_objects([3])
        [[3]]
    """
    if not _distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_group())
    return values


@contextmanager
def stopping_all() -> Iterator[None]:
    """Raise what fails in the block on any rank, on all of them; every rank has to enter it.

    One that went on would wait for a rank that is gone.

    Raises:
        UserError: an ``OSError`` of this rank, or whatever failed on another.

    Example:
        >>> with stopping_all():
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
    problem = None if failure is None else str(failure) or type(failure).__name__
    problems = [p for p in gather_objects(problem) if p is not None]
    if failure is not None:
        raise failure
    if problems:
        raise UserError(problems[0])
