"""What a training step takes: on batches in memory, and with the loader."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from vclr_lightning.bench.parts import Parts
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback, LightningDataModule, LightningModule, Trainer
from vclr_lightning.data.loading.collate import as_tensors, collate
from vclr_lightning.data.loading.finishing import finishing_time

_WARMUP = 2  # batches: the first ones choose algorithms and allocate
_LEAST, _MOST = 3, 200  # batches that count
_SMALL = 8  # videos of a first try, where a whole batch might take minutes


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training takes, after a warm-up.

    Attributes:
        seconds: per batch.
        videos: in a batch.
        steps: batches measured.
        wait: share of the time spent waiting for data.
        memory: peak bytes of the device, or of this process on the CPU; 0 where unknown.
        device: its name.
    """

    seconds: float
    videos: int
    steps: int
    wait: float
    memory: int
    device: str

    @property
    def per_video(self) -> float:
        """Seconds."""
        return self.seconds / self.videos


def training_cost(
    parts: Parts,
    *,
    videos: int,
    seconds: float,
    warmup: int = _WARMUP,
    data: LightningDataModule | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainingCost | None:
    """Train on micro-batches of ``videos`` for so many seconds, at least three batches.

    Args:
        parts: of the run.
        videos: in one process's micro-batch.
        seconds: to measure for.
        warmup: batches that do not count; with workers at least one for each.
        data: instead of the run's, such as :class:`OneBatch`.
        callbacks: that measure more.

    Returns:
        ``None`` where the run ends before there is enough to measure.
    """
    timer = _StepTimer(warmup, seconds)
    trainer = parts.trainer(callbacks=[*callbacks, timer], loggers=[], directory=None)
    try:
        trainer.fit(parts.module, datamodule=data or parts.data)
    except SystemExit as end:  # Lightning's, for a Ctrl-C
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from end
        raise
    if not timer.counted:
        return None
    return TrainingCost(
        seconds=timer.elapsed / timer.counted,
        videos=videos,
        steps=timer.counted,
        wait=min(1.0, timer.waited / timer.elapsed),
        memory=_memory(timer.device),
        device=_device_name(timer.device),
    )


def step_cost(parts: Parts, samples: Sequence[Any], *, batch: int, seconds: float) -> TrainingCost:
    """Train on one batch in memory; on 8 videos where three whole batches would take more than
    three times ``seconds``."""

    def measure(videos: int, seconds: float) -> TrainingCost:
        data = OneBatch(parts.data, batch_of(samples, videos))
        found = training_cost(parts, videos=videos, seconds=seconds, data=data)
        if found is None:
            raise UserError("the trainer ends after too few batches to measure; let it train on")
        return found

    if batch > _SMALL:
        small = measure(_SMALL, 0)
        if small.per_video * batch * (_WARMUP + _LEAST) > 3 * seconds:
            return small
    return measure(batch, seconds)


class _StepTimer(Callback):
    """Records when batches begin and end, and stops training when there are enough."""

    def __init__(self, skip: int, seconds: float) -> None:
        self.skip = skip
        self.seconds = seconds
        self.device = torch.device("cpu")
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.finished: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.device = trainer.strategy.root_device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def on_train_batch_start(self, trainer: Trainer, *_unused: Any) -> None:
        self.begins.append(time.perf_counter())
        self.finished.append(finishing_time(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_unused: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())
        if self.counted >= _LEAST and self.elapsed > self.seconds:
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


class OneBatch(LightningDataModule):
    """Repeats one batch, and moves it to the device as the run's data module does."""

    def __init__(self, data: LightningDataModule, batch: Any) -> None:
        super().__init__()
        self._data = data
        self._batch = batch

    def train_dataloader(self) -> Any:
        batch = self._batch
        if self.trainer is not None and self.trainer.strategy.root_device.type == "cuda":
            batch = apply_to_collection(batch, Tensor, Tensor.pin_memory)
        batches: Any = [batch] * (_WARMUP + _MOST)
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, number: int = 0) -> Any:
        return self._data.transfer_batch_to_device(batch, device, number)


def batch_of(samples: Sequence[Any], size: int) -> Any:
    """Return a batch of ``size`` samples, repeated where there are fewer."""
    return as_tensors(collate([samples[i % len(samples)] for i in range(size)]))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return cpu if device.type == "cpu" else str(device)
