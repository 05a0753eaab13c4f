"""The list of a run: over steps, epochs, checkpoints and numbers of ranks."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from vclr_lightning.callbacks.rejections import RejectionWriter
from vclr_lightning.core.errors import UserError


class Network(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Videos(LightningDataModule):
    """Batches of 4 of 40 videos; ``bad`` are the videos that fail in an epoch."""

    max_rejected_share = 0.05
    train = range(40)

    def __init__(self, bad: list[set[int]]) -> None:
        super().__init__()
        self.bad = bad

    def train_dataloader(self) -> DataLoader[Any]:
        bad = self.bad[self.trainer.current_epoch]
        batches = [list(range(start, start + 4)) for start in range(0, 40, 4)]
        return DataLoader([self._batch(rows, bad) for rows in batches], batch_size=None)  # type: ignore[arg-type]

    @staticmethod
    def _batch(rows: list[int], bad: set[int]) -> dict[str, Any]:
        rejected = [
            {"video_id": row, "path": f"{row}.mp4", "reason": "cut off"}
            for row in rows
            if row in bad
        ]
        read = [row for row in rows if row not in bad]
        return {"video_id": torch.tensor(read), "rejected": rejected}


def fit(folder: Path, bad: list[set[int]], *, epochs: int, begin: Path | None = None) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[RejectionWriter(directory=folder, every_n_steps=3)],
    )
    trainer.fit(Network(), datamodule=Videos(bad), ckpt_path=begin)
    return trainer


def listed(folder: Path) -> list[str]:
    with (folder / "rejected.csv").open(newline="") as lines:
        return [row["video_id"] for row in csv.DictReader(lines)]


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_the_list_is_of_the_present(tmp_path: Path) -> None:
    bad = [{1, 2}, {2, 30}, {30, 7}]  # each time a twentieth, in all a tenth
    first = fit(tmp_path, bad, epochs=2)
    assert listed(tmp_path) == ["2", "30"]
    first.save_checkpoint(tmp_path / "two.ckpt")
    fit(tmp_path, bad, epochs=3, begin=tmp_path / "two.ckpt")
    assert listed(tmp_path) == ["30", "7"]
    with pytest.raises(UserError, match=r"3 of 40 videos could not be read \(7\.5%"):
        fit(tmp_path / "other", [{1, 2, 3}], epochs=1)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_what_was_not_exchanged_yet_is_kept_by_any_number_of_ranks(ranks: int) -> None:
    pending = [[[f"rejected by {rank}"], [rank, 10 + rank]] for rank in range(3)]
    kept: list[Any] = []
    seen: list[int] = []
    for rank in range(ranks):
        writer = RejectionWriter(directory="nowhere")
        writer.load_state_dict({"log": {"rejected": [], "seen": []}, "pending": pending})
        data = SimpleNamespace(max_rejected_share=0.05, train=range(40))
        trainer = SimpleNamespace(
            datamodule=data, is_global_zero=False, global_rank=rank, world_size=ranks
        )
        writer.on_train_start(trainer, None)  # type: ignore[arg-type]
        kept += writer._rejected
        seen += writer._seen
    assert sorted(kept) == [f"rejected by {rank}" for rank in range(3)]
    assert sorted(seen) == [0, 1, 2, 10, 11, 12]


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_errors_that_pass_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="vclr_lightning"):
        fit(tmp_path, [{k % 40} for k in range(130)], epochs=130)
    assert len(caplog.messages) == 101
    assert "further unreadable videos are listed in" in caplog.messages[-1]
