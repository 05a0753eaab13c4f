"""The speed of a run, and the share of time that it waits for data."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.data.loading.finishing import finishing_time


class Throughput(CheckedCallback):
    """Logs ``perf/videos_per_s``, ``perf/data_wait`` and the learning rate used, ``train/lr``.

    Speed counts the samples of all ranks over the wall time since it was last logged; the data wait
    is the share of that time between the end of one batch and the start of the next, without the
    augmentation that the workers leave to the device. Values appear with the trainer's
    ``log_every_n_steps``. Works with any LightningModule.

    Example:
        >>> samples_in({"video_id": __import__("torch").zeros(4)})
        4
    """

    def __init__(self) -> None:
        self._started = self._batch_ended = self._epoch_ended = self._waited = 0.0
        self._finished = 0.0
        self._samples = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        self._finished = finishing_time(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_ended = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The time between two epochs (evaluation) does not count.
        if self._epoch_ended:
            self._batch_ended = time.perf_counter()
            self._started += self._batch_ended - self._epoch_ended
            self._epoch_ended = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        finished = finishing_time(trainer)
        self._waited += time.perf_counter() - self._batch_ended - (finished - self._finished)
        self._finished = finished
        self._samples += samples_in(batch) * trainer.world_size
        if trainer.optimizers and trainer._logger_connector.should_update_logs:
            _log(trainer, {"train/lr": float(trainer.optimizers[0].param_groups[0]["lr"])})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch_ended = now = time.perf_counter()
        log = trainer._logger_connector.should_update_logs
        if trainer.fit_loop._should_accumulate() or not log:
            return
        elapsed = max(now - self._started, 1e-9)
        values = {
            "perf/videos_per_s": self._samples / elapsed,
            "perf/data_wait": min(1.0, self._waited / elapsed),
        }
        _log(trainer, values)
        self._reset()

    def _reset(self) -> None:
        self._started = self._batch_ended = time.perf_counter()
        self._waited, self._samples = 0.0, 0


def _log(trainer: Trainer, values: dict[str, float]) -> None:
    """Log directly: Lightning's way rounds to single precision."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)


def samples_in(batch: Any) -> int:
    """Return the number of samples in a batch: of its ``video_id``, or of the first tensor."""
    if isinstance(batch, dict) and isinstance(batch.get("video_id"), Tensor):
        return len(batch["video_id"])
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, dict) else batch
    return next((samples_in(p) for p in parts if isinstance(p, Tensor | dict | list | tuple)), 0)
