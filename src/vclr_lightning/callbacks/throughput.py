"""The speed of a run, and the share of time that it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.data.loading.finishing import finishing_time


class Throughput(CheckedCallback):
    """Logs ``perf/samples_per_s``, ``perf/data_wait`` and the learning rate used, ``train/lr``.

    Speed counts the samples of all ranks over the wall time since it was last logged; the data wait
    is the share of that time between the end of one batch and the start of the next, without the
    augmentation that the workers leave to the device. Values appear with the trainer's
    ``log_every_n_steps``. The rates of further optimizers are ``train/lr_2`` and so on. Works with
    any LightningModule, and with batches of any structure, see :func:`samples_in`.

    Args:
        unit: what a sample is called in ``perf/{unit}_per_s``.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[Throughput()], logger=False, accelerator="cpu")
    """

    def __init__(self, *, unit: str = "samples") -> None:
        self.unit = unit
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
        if trainer._logger_connector.should_update_logs:
            rates = [float(o.param_groups[0]["lr"]) for o in trainer.optimizers if o.param_groups]
            names = ["train/lr", *(f"train/lr_{i + 2}" for i in range(len(rates) - 1))]
            _log(trainer, dict(zip(names, rates, strict=False)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch_ended = now = time.perf_counter()
        log = trainer._logger_connector.should_update_logs
        if trainer.fit_loop._should_accumulate() or not log:
            return
        elapsed = max(now - self._started, 1e-9)
        values = {
            f"perf/{self.unit}_per_s": self._samples / elapsed,
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
    """Return the number of samples in a batch: of its ``video_id``, or of its first part.

    A part is a tensor or array with a length, a list of strings or numbers, or an object with a
    ``batch_size`` or ``num_graphs``; looked for in mappings, sequences and dataclasses.

    Example:
        >>> import torch
        >>> samples_in({"x": {"name": ["a", "b", "c"]}, "y": torch.zeros(3)})
        3
        >>> samples_in((torch.tensor(0.5), [torch.zeros(4, 2), torch.zeros(9)]))
        4
    """
    if isinstance(batch, Mapping):
        if isinstance(batch.get("video_id"), Tensor):
            return len(batch["video_id"])
        return _first(batch.values())
    for name in ("batch_size", "num_graphs"):
        size = getattr(batch, name, None)
        size = size[0] if isinstance(size, tuple) and size else size  # torch.Size of a TensorDict
        if isinstance(size, int):
            return size
    if hasattr(batch, "shape"):
        return int(batch.shape[0]) if len(batch.shape) else 0
    if isinstance(batch, list | tuple):
        plain = bool(batch) and isinstance(batch[0], str | bytes | int | float)
        return len(batch) if plain else _first(batch)
    return _first(vars(batch).values()) if is_dataclass(batch) else 0


def _first(parts: Iterable[Any]) -> int:
    return next((size for part in parts if (size := samples_in(part))), 0)
