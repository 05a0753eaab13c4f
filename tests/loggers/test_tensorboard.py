"""TensorBoard's files, read by TensorBoard: a run that continues has each step once."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vclr_lightning.core.errors import UserError

Main = Callable[..., SimpleNamespace]

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    return found.Reload()


def test_a_run_that_is_cut_back_shows_each_step_once(tmp_path: Path) -> None:
    from vclr_lightning.loggers.tensorboard import TensorBoardLogger

    for steps, start in ((range(6), 0), (range(4, 8), 4)):
        logger = TensorBoardLogger(directory=tmp_path)
        logger.log_hyperparams({"seed": 0, "optim": {"lr": 0.1}, "none": None})
        logger.rewind(start)
        for step in steps:
            logger.log_metrics({"loss": step + start / 10}, step=step)
        logger.log_summary({"best": 0.5, "test/top1": 0.25})
        image = np.full((4, 6, 3), 9, dtype=np.uint8)
        logger.log_image("seen", [image], caption=["a"])
        logger.log_table("test/Classes", ["class", "videos"], [["run|walk", 3], ["sit", None]])
        logger.conclude("finished")
    found = events(tmp_path)
    expected = [(s, s + 0.0) for s in range(4)] + [(s, s + 0.4) for s in range(4, 8)]
    scalars = [(e.step, pytest.approx(e.value)) for e in found.Scalars("loss")]
    assert [(step, value) for step, value in scalars] == expected
    assert found.Scalars("hp_metric")[-1].value == 0.5
    assert found.Scalars("test/top1")[-1].step == 7
    assert found.Images("seen")[-1].width == 6
    (table,) = found.Tensors("test/Classes/text_summary")[-1].tensor_proto.string_val
    assert b"| run\\|walk | 3 |" in table
    assert "_hparams_/session_start_info" in found.PluginTagToContent("hparams")


def test_a_training_logs_and_says_what_is_missing(
    main: Main, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = main(*tiny, "logger=tensorboard", "epochs=2")
    assert done.code == 0, done.err
    folder = Path("outputs/pretrain/default")
    found = events(folder)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): row["train/loss"] for row in csv.DictReader(file)}
    losses = {step: float(loss) for step, loss in rows.items() if loss}
    assert {e.step: e.value for e in found.Scalars("train/loss")} == pytest.approx(losses)
    assert found.Images("train/views/0")
    from vclr_lightning.loggers import tensorboard

    def missing(*args: Any, **kwargs: Any) -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'")

    monkeypatch.setattr(tensorboard.LightningTensorBoardLogger, "__init__", missing)
    with pytest.raises(UserError, match=r"vclr_lightning\[tensorboard\]"):
        tensorboard.TensorBoardLogger(directory=folder)
    assert "tensorboard" in sys.modules
