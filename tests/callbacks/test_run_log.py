"""The log file of a run, and how often something is logged."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback

from vclr_lightning.callbacks.run_log import RunLog
from vclr_lightning.stages.shared.trainer import LogEveryEpoch

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:The .*dataloader. does not have many workers",
    "ignore:The number of training batches",
)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [4, 9, 14]), (2, [2, 5, 8])])
def test_every_epoch_logs_its_last_step(
    fit: Any, tmp_path: Path, accumulate: int, steps: list[int]
) -> None:
    options = {"log_every_n_steps": 100, "accumulate_grad_batches": accumulate}
    fit(tmp_path, LogEveryEpoch(), **options)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]] == steps


def test_the_file_tells_start_epochs_and_end(
    fit: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        fit(tmp_path, RunLog())
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    lines = (tmp_path / "train.log").read_text().splitlines()
    said = [line for line in lines if "epoch" in line or "training" in line]
    assert said[0].startswith("5 batches an epoch; 3 epochs")
    assert [line.split(":")[0] for line in said[1:4]] == [
        f"epoch {n}/3, step {5 * n}" for n in (1, 2, 3)
    ]
    assert "train/loss" in said[1]
    assert said[-1] == "training ended after step 15"
    assert "5 batches an epoch" not in capfd.readouterr().err


def test_a_value_stands_in_the_lines_of_the_epochs_that_made_it(fit: Any, tmp_path: Path) -> None:
    class Evaluates(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch % 3 == 0:
                module.log("val/constant", 0.5)

    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        fit(tmp_path, Evaluates(), RunLog(), max_epochs=5)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    lines = [line for line in (tmp_path / "train.log").read_text().splitlines() if "/5, " in line]
    assert ["val/constant 0.5" in line for line in lines] == [True, False, False, True, False]
    # The module logs its own after all callbacks.
    assert all("train/loss" in line and "val/score" in line for line in lines)
