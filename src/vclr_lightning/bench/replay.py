"""Batches that are already there, so that training waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from vclr_lightning.data.loading.collate import as_tensors, collate


class Replay(LightningDataModule):
    """Gives one batch over and over, and moves it to the device as the data module it is from.

    Args:
        data: moves a batch to the device, which is where ``device`` augmentation finishes.
        batch: as a loader gives it.
        length: batches of an epoch.
    """

    def __init__(self, data: LightningDataModule, batch: Any, length: int) -> None:
        super().__init__()
        self._data = data
        self._batch = batch
        self._length = length

    def train_dataloader(self) -> Any:
        return _Again(self._batch, self._length)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int = 0
    ) -> Any:
        return self._data.transfer_batch_to_device(batch, device, dataloader_idx)


class _Again:
    def __init__(self, batch: Any, length: int) -> None:
        self._batch = batch
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._length):
            yield self._batch


def batch_of(samples: Sequence[Any], size: int, *, pinned: bool) -> Any:
    """Return a batch of ``size`` samples; where there are fewer, they come again.

    Args:
        samples: of a training dataset.
        size: of the batch.
        pinned: whether its memory is page-locked, as a loader's on CUDA.
    """
    batch = as_tensors(collate([samples[i % len(samples)] for i in range(size)]))
    return _pinned(batch) if pinned else batch


def _pinned(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.pin_memory()
    if isinstance(batch, Mapping):
        return {name: _pinned(value) for name, value in batch.items()}
    return batch
