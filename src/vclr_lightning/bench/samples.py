"""Make samples as a worker does, and time it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass
from typing import Any

import torch

from vclr_lightning.bench.clock import Clock, Seconds
from vclr_lightning.bench.watched import WatchedReader, WatchedTransform, shares_of_reading
from vclr_lightning.core.screen import Update
from vclr_lightning.data.loading.collate import collate
from vclr_lightning.data.loading.dataset import VideoDataset

PHASES = ("open", "seek", "decode", "convert", "augment", "draw", "collate")
"""Of a sample, in their order; ``draw`` is choosing frames, and putting the clips together."""

_LEAST, _MOST = 8, 512  # samples
_SLOW = 3  # samples suffice where eight would take three times as long as is given, or as this:
_PATIENCE = 2.0  # seconds
_LOOKED_INTO = 16  # of them, how reading divides
_KEPT = 64  # for batches to train on


@dataclass(frozen=True, kw_only=True)
class SampleCost:
    """What a sample costs a worker: means over the samples that were made.

    Attributes:
        phases: CPU seconds of each of :data:`PHASES`, which add up to ``cpu``.
        wall: seconds that pass, waiting for the disk among them.
        samples: how many were made.
        samples_kept: some of them, to train on.
        keys: ``(epoch, row)`` of those that were made.
        rejected: videos that could not be read, and why.
    """

    phases: dict[str, float]
    wall: float
    samples: int
    samples_kept: list[Any]
    keys: list[tuple[int, int]]
    rejected: list[Any]

    @property
    def cpu(self) -> float:
        """CPU seconds of a sample."""
        return sum(self.phases.values())

    @property
    def wait(self) -> float:
        """Seconds of a sample in which the CPU did nothing for it."""
        return max(0.0, self.wall - self.cpu)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread for a while, as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sample_cost(
    dataset: VideoDataset,
    keys: Iterable[tuple[int, int]],
    *,
    seconds: float,
    update: Update,
    batch: int,
) -> SampleCost:
    """Make samples until the time is up, at least eight, or three where they are slow.

    Args:
        dataset: of training.
        keys: which samples; the first one is not counted.
        seconds: to measure for.
        update: is told how many were made.
        batch: samples that are put together.
    """
    clock, profile = Clock(), Profile(time.process_time, builtins=False)
    watched = dataset.replaced(
        reader=WatchedReader(dataset.reader, clock),
        transform=WatchedTransform(dataset.transform, clock),
    )
    looked = dataset.replaced(reader=WatchedReader(dataset.reader, Clock(), profile))
    kept: list[Any] = []
    made: list[tuple[int, int]] = []
    rejected: list[Any] = []
    whole = Clock()
    begin = time.monotonic()
    with one_thread():
        for number, key in enumerate(keys):
            if number == 0:  # what is only done once: imports, first memory
                dataset[key]
                continue
            with whole("sample"):
                sample = watched[key]
            if number <= (_LOOKED_INTO if time.monotonic() - begin < seconds else 1):
                looked[key]
            made.append(key)
            rejected += sample["rejected"]
            kept = [*kept, sample][-_KEPT:]
            update(len(made), "samples")
            taken = time.monotonic() - begin
            least = _LEAST if taken < 3 * max(seconds, _PATIENCE) else _SLOW
            if len(made) >= _MOST or (taken > seconds and len(made) >= least):
                break
        joined = Clock()
        several = [kept[i % len(kept)] for i in range(min(batch, _KEPT))]
        for _ in range(2):  # the first one touches new memory
            joined.parts.clear()
            with joined("collate"):
                collate(several)
    return _cost(
        *(clock.parts, whole.parts["sample"], joined.parts["collate"], len(several)),
        shares=shares_of_reading(profile),
        kept=kept,
        made=made,
        rejected=rejected,
    )


def _cost(
    parts: dict[str, Seconds],
    whole: Seconds,
    joined: Seconds,
    together: int,
    *,
    shares: dict[str, float],
    kept: list[Any],
    made: list[tuple[int, int]],
    rejected: list[Any],
) -> SampleCost:
    number = len(made)
    reading = parts["read"].cpu
    phases = {
        "open": parts["open"].cpu / number,
        **{name: share * reading / number for name, share in shares.items()},
        "augment": parts["augment"].cpu / number,
        "collate": joined.cpu / together,
    }
    known = sum(part.cpu for part in parts.values())
    phases["draw"] = max(0.0, whole.cpu - known) / number
    return SampleCost(
        phases={name: phases[name] for name in PHASES},
        wall=whole.wall / number + joined.wall / together,
        samples=number,
        samples_kept=kept,
        keys=made,
        rejected=rejected,
    )
