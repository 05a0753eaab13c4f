"""Make a batch of samples."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vclr_lightning.core.errors import CodeFault, UserError

_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class Failure:
    """An error that ends the run, as a value: raised in a worker, it would arrive as text."""

    error: UserError | CodeFault


class Collate:
    """Makes a batch of samples by :func:`collate`; in a worker, in shared memory.

    Torch would move the batch to shared memory in a thread, which can only print that there is no
    room, and the batch would never arrive. If a sample is a :class:`Failure`, or there is no room
    for the ``ahead`` batches that all workers load ahead, the batch is a failure. ``free`` is the
    number of bytes of shared memory before the first batch.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self.free = sys.maxsize

    def __call__(self, samples: Sequence[Any]) -> Any:
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        batch = collate(samples)
        if get_worker_info() is None:
            return batch
        tensors = list(_tensors(batch))
        size = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        # Torch before 2.10 takes room that is not there, and the process dies as it writes.
        if size * self._ahead > self.free or size > shared_memory()[0]:
            return self._shortage(size)
        self.free = sys.maxsize
        try:
            for tensor in tensors:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "No space left" not in str(error):
                raise
            return self._shortage(size)
        return batch

    def _shortage(self, size: int) -> Failure:
        needed = size * self._ahead
        free, used = shared_memory()
        wanted = math.ceil((used + 2 * needed) / 2**20)
        error = UserError(
            f"{_SHARED_MEMORY} is too small: batches that are loaded ahead need "
            f"{needed / 2**20:.1f} MB, and {free / 2**20:.1f} MB are free; give docker run "
            f"--shm-size={wanted}m, or data.num_workers=0, or a smaller data.prefetch_factor"
        )
        return Failure(error)


def shared_memory() -> tuple[int, int]:
    """Return the free and used bytes of shared memory; plenty free if that is unknown."""
    try:
        usage = shutil.disk_usage(_SHARED_MEMORY)
    except OSError:
        return sys.maxsize, 0
    return usage.free, usage.total - usage.free


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack samples along a new first dimension, without those that are not ``valid``.

    Images become tensors. Everything smaller becomes NumPy arrays, since every tensor that a worker
    sends holds a file descriptor in the receiving process, where :func:`as_tensors` converts them.
    Lists are joined, including those of invalid samples.

    Shape:
        Tensors and arrays ``(...)`` become ``(B, ...)``, numbers become ``(B,)``.

    Example:
        >>> good = {"label": 4, "rejected": [], "valid": True}
        >>> bad = {"label": 2, "rejected": ["a.mp4"], "valid": False}
        >>> collate([good, bad])
        {'label': array([4]), 'rejected': ['a.mp4']}
    """
    valid = [bool(sample["valid"]) for sample in samples]
    names = [name for name in samples[0] if name != "valid"]
    return {name: _join([sample[name] for sample in samples], valid) for name in names}


def _join(values: list[Any], valid: list[bool]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _join([value[name] for value in values], valid) for name in first}
    if isinstance(first, list):
        return [item for value in values for item in value]
    # With no valid sample at all, the first one gives the shape of an empty batch.
    kept = [value for value, keep in zip(values, valid, strict=True) if keep] or [first]
    stack: Any = torch.stack if isinstance(first, Tensor) else np.stack
    return stack(kept)[: sum(valid)]


def as_tensors(batch: Any) -> Any:
    """Convert the arrays of a collated batch to tensors that share their memory.

    Example:
        >>> as_tensors({"label": np.array([4]), "rejected": ["a.mp4"]})
        {'label': tensor([4]), 'rejected': ['a.mp4']}
    """
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    if isinstance(batch, Mapping):
        return {name: as_tensors(value) for name, value in batch.items()}
    return batch
