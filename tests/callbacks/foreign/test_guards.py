"""Guards, progress, throughput and the log of a run, with modules of other projects."""

from __future__ import annotations

import csv
import io
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_modules import MODULES, make_loader, make_trainer
from rich.console import Console
from torch import Tensor

from vclr_lightning.callbacks import (
    GracefulStop,
    NonFiniteGuard,
    NonFiniteLossError,
    ResumableCheckpoint,
    RunLog,
    RunProgress,
    Throughput,
)
from vclr_lightning.callbacks.throughput import samples_in
from vclr_lightning.core.lightning import Callback
from vclr_lightning.core.stopping import StopRequested
from vclr_lightning.loggers.csv import CSVLogger

OURS = ("vclr", "video", "init=", "name=NEW", "the same command", "callbacks.")


def breaking(kind: str, batch: int) -> Any:
    """Return a module whose (last) loss is not finite from a batch on."""

    class Breaks(MODULES[kind]):
        def on_train_batch_start(self, _: Any, index: int) -> None:
            if self.trainer.fit_loop.total_batch_idx == batch:
                with torch.no_grad():
                    next(self.encoder.parameters()).fill_(float("nan"))

    return Breaks()


@pytest.mark.parametrize("kind", MODULES)
def test_a_loss_that_is_not_finite(kind: str, tmp_path: Path) -> None:
    saving = ResumableCheckpoint(directory=tmp_path, every_n_steps=2, min_minutes=0)
    guard = NonFiniteGuard(directory=tmp_path)
    trainer = make_trainer(guard, saving, enable_checkpointing=True)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(breaking(kind, 6), make_loader("sequential", kind))
    text = str(caught.value).replace(str(tmp_path), "")
    step = 12 if kind == "adversarial" else 6
    assert f"the loss is not finite in step {step} (batch 1 of epoch 1); its samples" in text
    assert "the last checkpoint is intact" in text
    assert not [word for word in OURS if word in text]
    if kind == "classifier":
        assert "sample-04, sample-05, sample-06, sample-07 are listed in" in text
        with guard.path.open() as file:
            listed = [row["id"] for row in csv.DictReader(file)]
        assert listed == [f"sample-{i:02d}" for i in range(4, 8)]
    else:
        assert "have no ids" in text
        assert not guard.path.exists()


@pytest.mark.parametrize("kind", MODULES)
def test_stops_after_the_batch(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Signals(Callback):
        def on_before_backward(self, trainer: Any, *args: Any) -> None:
            if trainer.fit_loop.total_batch_idx == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    saving = ResumableCheckpoint(directory=tmp_path)
    trainer = make_trainer(GracefulStop(), Signals(), saving, enable_checkpointing=True)
    with pytest.raises(StopRequested):
        trainer.fit(MODULES[kind](), make_loader("plain", kind))
    said = capfd.readouterr().err.replace(str(tmp_path), "")
    steps = 8 if kind == "adversarial" else 4
    assert f"Stopped by SIGTERM after step {steps}: saved /last.ckpt; trainer.fit(..., " in said
    assert not [word for word in OURS if word in said]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == steps


@pytest.mark.parametrize(
    ("kind", "form", "options", "shown"),
    [
        ("classifier", "plain", {}, ("epoch 1/2", "epoch 2/2", "step 10/10", "left 0:00:00")),
        ("classifier", "plain", {"max_epochs": None, "max_steps": 7}, ("epoch 2  step 7/7",)),
        ("classifier", "iterable", {}, ("epoch 2/2  step 10  train/loss",)),
        ("simclr", "iterable", {"max_epochs": -1, "max_steps": 6}, ("epoch 2  step 6/6",)),
        ("adversarial", "plain", {}, ("step 1/10", "step 10/10", "train/critic", "left 0:00:00")),
        ("adversarial", "plain", {"max_steps": 8, "max_epochs": None}, ("step 2/8", "step 8/8")),
        ("adversarial", "iterable", {}, ("epoch 2/2  step 10  train/generator",)),
    ],
)
def test_progress(kind: str, form: str, options: dict[str, Any], shown: tuple[str, ...]) -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    bar = RunProgress(line_every_s=0, console=console)
    trainer = make_trainer(bar, enable_progress_bar=True, **options)
    assert [c for c in trainer.callbacks if "Progress" in type(c).__name__] == [bar]
    trainer.fit(MODULES[kind](), make_loader(form, kind))
    text = console.file.getvalue()
    for words in shown:
        assert words in text
    assert "-1" not in text
    assert ("left" in text) == (form != "iterable" or "max_steps" in options)


@pytest.mark.parametrize("kind", MODULES)
def test_throughput_and_log(kind: str, tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "run.log")
    logging.getLogger().addHandler(handler)
    try:
        trainer = make_trainer(Throughput(), RunLog(), logger=CSVLogger(directory=tmp_path))
        trainer.fit(MODULES[kind](), make_loader("iterable", kind))
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["perf/samples_per_s"]]
    assert len(rows) == 10
    assert all(float(row["perf/samples_per_s"]) > 0 for row in rows)
    first = {"classifier": 0.1, "simclr": 0.01, "adversarial": 0.01}
    assert float(rows[0]["train/lr"]) == first[kind]
    assert [row.get("train/lr_2") for row in rows] == (
        ["0.02"] * 10 if kind == "adversarial" else [None] * 10
    )
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[0] == "2 epochs, 1 process(es)"
    assert [line.partition(",")[0] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]


def test_samples_in_batches_of_any_structure() -> None:
    @dataclass
    class Graphs:
        scale: float
        nodes: Tensor

    class Sized:
        batch_size = torch.Size([6, 2])

    assert samples_in(Graphs(0.5, torch.zeros(7, 2))) == 7
    assert samples_in(Sized()) == 6
    assert samples_in([{"meta": None, "text": ["a", "b"]}, torch.zeros(9)]) == 2
    assert samples_in((torch.zeros(()), {"views": [torch.zeros(5, 3)] * 2})) == 5
    assert samples_in(torch.zeros(3).numpy()) == 3
    assert samples_in("text") == samples_in(None) == samples_in({}) == 0
