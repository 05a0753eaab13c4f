from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from vclr_lightning.callbacks.throughput import Throughput, samples_in

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:The .*dataloader. does not have many workers"
)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_speed_wait_and_rate_stand_in_the_rows(fit: Any, tmp_path: Path, accumulate: int) -> None:
    fit(tmp_path, Throughput(unit="videos"), accumulate_grad_batches=accumulate)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row["perf/videos_per_s"]) > 0
        assert 0 <= float(row["perf/data_wait"]) <= 1
    # StepLR of the module: x 0.9 every two steps, in full precision.
    expected, rate = [], 0.1
    for step in range(len(rows)):
        rate = rate if step == 0 or step % 2 else rate * 0.9
        expected.append(rate)
    assert [float(row["train/lr"]) for row in rows] == expected


def test_rows_of_a_batch() -> None:
    assert samples_in(torch.zeros(3, 2)) == 3
    assert samples_in([torch.zeros(5), torch.zeros(5)]) == 5
    assert samples_in({"x": "text", "views": {"a": torch.zeros(7, 1)}}) == 7
    assert samples_in({"video_id": torch.zeros(2), "x": torch.zeros(9)}) == 2
    assert samples_in([]) == 0


class _Finishing(LightningDataModule):
    """Takes its time to finish a batch, and says so or not."""

    def __init__(self, *, says: bool) -> None:
        super().__init__()
        self.finishing_time = 0.0
        self._says = says

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(TensorDataset(torch.zeros(6, 4)), batch_size=2)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int = 0) -> Any:
        time.sleep(0.1)
        if self._says:
            self.finishing_time += 0.1
        return batch


class _Least(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("says", [True, False])
def test_finishing_a_batch_is_no_waiting(says: bool, tmp_path: Path) -> None:
    trainer = Trainer(
        max_epochs=1,
        log_every_n_steps=1,
        accelerator="cpu",
        callbacks=[Throughput(unit="videos")],
        logger=CSVLogger(tmp_path, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(_Least(), datamodule=_Finishing(says=says))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row["perf/data_wait"] for row in csv.DictReader(file)]
    waits = [float(wait) for wait in rows if wait]
    assert len(waits) == 3
    assert all(wait < 0.5 if says else wait > 0.5 for wait in waits[1:])
