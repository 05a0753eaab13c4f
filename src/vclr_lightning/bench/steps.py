"""What a training step takes: on batches that are there, and with the loader."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

from vclr_lightning.bench.parts import Parts
from vclr_lightning.bench.replay import Replay, batch_of
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import Update
from vclr_lightning.data.loading.finishing import finishing_time

_WARMUP = 2  # batches: the first ones choose algorithms and allocate
_LEAST, _MOST = 3, 200  # batches that count
_SMALL = 8  # videos of a first try, where a whole batch might take minutes


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Training on batches that need not be waited for.

    Attributes:
        seconds: of a batch.
        videos: in it.
        wanted: videos in the run's batch, more where its batch would have taken too long.
        steps: batches that were measured.
        memory: peak bytes of the device, or of this process on the CPU; 0 where nothing tells.
        device: its name.
    """

    seconds: float
    videos: int
    wanted: int
    steps: int
    memory: int
    device: str

    @property
    def per_video(self) -> float:
        """Seconds."""
        return self.seconds / self.videos


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Training with the loader.

    Attributes:
        workers: that loaded.
        videos_per_s: as measured.
        wait: share of the time in which training waited for data.
        steps: batches that were measured.
    """

    workers: int
    videos_per_s: float
    wait: float
    steps: int


class _Watch(Callback):
    """Notes when batches begin and end, and stops when there are enough."""

    def __init__(self, *, skip: int, seconds: float, update: Update) -> None:
        self.skip = skip
        self.seconds = seconds
        self.update = update
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.finished: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_unused: Any) -> None:
        self.begins.append(time.perf_counter())
        self.finished.append(finishing_time(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_unused: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        now = time.perf_counter()
        self.ends.append(now)
        counted = len(self.ends) - self.skip
        self.update(max(0, counted), "batches")
        if counted >= _LEAST and now - self.ends[self.skip - 1] > self.seconds:
            trainer.should_stop = True

    @property
    def counted(self) -> int:
        return max(0, len(self.ends) - self.skip)

    @property
    def elapsed(self) -> float:
        return self.ends[-1] - self.ends[self.skip - 1]

    @property
    def waited(self) -> float:
        pairs = zip(self.begins[self.skip :], self.ends[self.skip - 1 :], strict=False)
        between = sum(begin - end for begin, end in pairs)
        return between - (self.finished[-1] - self.finished[self.skip - 1])


def step_cost(
    parts: Parts,
    samples: Sequence[Any],
    *,
    batch: int,
    seconds: float,
    directory: Path,
    update: Update,
    try_small: bool = True,
) -> StepCost:
    """Train on batches of samples that are there, as Lightning would.

    Args:
        parts: of the run.
        samples: to make batches of.
        batch: videos of one process's micro-batch.
        seconds: to measure for; where not even three whole batches would fit into it three times
            over, smaller ones are measured.
        directory: for what the trainer writes.
        update: is told how many batches there were.
        try_small: whether a whole batch might take too long.
    """
    size, measured = batch, None
    if try_small and batch > _SMALL:
        measured = _replayed(parts, samples, _SMALL, seconds=0, directory=directory, update=update)
        whole = measured.elapsed / measured.counted * batch / _SMALL * (_WARMUP + _LEAST)
        if whole > 3 * seconds:
            size = _SMALL
    if measured is None or size == batch:
        measured = _replayed(
            parts, samples, size, seconds=seconds, directory=directory, update=update
        )
    return StepCost(
        seconds=measured.elapsed / measured.counted,
        videos=size,
        wanted=batch,
        steps=measured.counted,
        memory=_memory(measured.device),
        device=_device_name(measured.device),
    )


class _Replayed(_Watch):
    device = torch.device("cpu")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.device = trainer.strategy.root_device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def _replayed(
    parts: Parts,
    samples: Sequence[Any],
    size: int,
    *,
    seconds: float,
    directory: Path,
    update: Update,
) -> _Replayed:
    watch = _Replayed(skip=_WARMUP, seconds=seconds, update=update)
    trainer = parts.trainer(callbacks=[watch], loggers=[], directory=directory)
    pinned = trainer.strategy.root_device.type == "cuda"
    data = Replay(parts.data, batch_of(samples, size, pinned=pinned), _WARMUP + _MOST)
    _fit(trainer, parts.module, data)
    if watch.counted < 1:
        raise UserError(
            f"the trainer ends after {len(watch.ends)} batches, too few to measure; let it train on"
        )
    return watch


def _fit(trainer: Trainer, module: LightningModule, data: LightningDataModule) -> None:
    """Train; an interruption stays one, which Lightning turns into the end of the process."""
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from end
        raise


def run_cost(
    parts: Parts, *, workers: int, batch: int, seconds: float, directory: Path, update: Update
) -> RunCost | None:
    """Train with the loader, and leave out the time until every worker has delivered once.

    Args:
        parts: of the run, whose data module has ``workers``.
        workers: that load.
        batch: videos of one process's micro-batch.
        seconds: to measure for.
        directory: for what the trainer writes.
        update: is told how many batches there were.

    Returns:
        The speed; ``None`` where the run ended before there was enough to measure.
    """
    watch = _Watch(skip=max(1, workers), seconds=seconds, update=update)
    trainer = parts.trainer(callbacks=[watch], loggers=[], directory=directory)
    _fit(trainer, parts.module, parts.data)
    if watch.counted < 1:
        return None
    return RunCost(
        workers=workers,
        videos_per_s=watch.counted * batch / watch.elapsed,
        wait=min(1.0, watch.waited / watch.elapsed),
        steps=watch.counted,
    )


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return (
        f"CPU, {threads} thread{'s' if threads > 1 else ''}"
        if device.type == "cpu"
        else str(device)
    )
