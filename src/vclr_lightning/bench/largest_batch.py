"""The largest batch that fits a device: tried on a GPU, estimated on a CPU."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vclr_lightning.bench.parts import Build
from vclr_lightning.bench.step import OneBatch, batch_of, training_cost
from vclr_lightning.core.errors import causes

_SAFE = 0.8  # share of the free memory that an estimate uses
_MOST = 16384  # videos


@dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The largest micro-batch of a process.

    Attributes:
        videos: of it; 0 if not even one fits, ``None`` where it is unknown.
        tried: whether it was trained on, not estimated.
        limited: whether the number of videos limits it, not the memory.
    """

    videos: int | None
    tried: bool
    limited: bool = False


def try_batches(fits: Callable[[int], bool], *, first: int, most: int) -> LargestBatch:
    """Double ``first`` as long as it fits, or halve it until it does.

    Args:
        fits: trains on a batch of so many videos.
        first: videos to begin with.
        most: videos that there are.

    Example:
        >>> try_batches(lambda videos: videos < 100, first=6, most=10_000)
        LargestBatch(videos=96, tried=True, limited=False)
    """
    videos = min(first, most)
    if not fits(videos):
        while videos > 1:
            videos //= 2
            if fits(videos):
                return LargestBatch(videos=videos, tried=True)
        return LargestBatch(videos=0, tried=True)
    while 2 * videos <= min(most, _MOST):
        if not fits(2 * videos):
            return LargestBatch(videos=videos, tried=True)
        videos *= 2
    return LargestBatch(videos=videos, tried=True, limited=True)


def estimate_batch(*, free: int | None, per_video: float, most: int) -> LargestBatch:
    """Estimate from the free memory and what a video keeps for the backward pass.

    The largest power of two that needs at most 80 % of it. Gradients on their way and the work
    space of convolutions are not counted.

    Example:
        >>> estimate_batch(free=2**30, per_video=2**20, most=10_000).videos
        512
    """
    if free is None or per_video <= 0:
        return LargestBatch(videos=None, tried=False)
    fitting = int(_SAFE * free / per_video)
    if fitting > most:
        return LargestBatch(videos=most, tried=False, limited=True)
    return LargestBatch(videos=2 ** int(math.log2(fitting)) if fitting else 0, tried=False)


def fits_device(build: Build, samples: Sequence[Any]) -> Callable[[int], bool]:
    """Return a function that trains a few steps on a batch, and says whether memory sufficed."""

    def fits(videos: int) -> bool:
        parts = build({"data.num_workers": 0})
        data = OneBatch(parts.data, batch_of(samples, videos))
        enough = True
        try:
            training_cost(parts, videos=videos, seconds=0.0, data=data)
        except Exception as error:
            if not any(isinstance(cause, torch.cuda.OutOfMemoryError) for cause in causes(error)):
                raise
            enough = False
        del parts, data
        gc.collect()  # what the frames of the error hold
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return enough

    return fits


def free_memory() -> int | None:
    """Return the bytes of main memory that are free, ``None`` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":") for line in lines if ":" in line)
    found = sizes.get("MemAvailable", "").split()
    return 1024 * int(found[0]) if found else None
