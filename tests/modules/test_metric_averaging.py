"""What is logged of training: averages since the last line, the same after a stop."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.loggers.csv import CSVLogger

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")


class Recorder(Callback):
    """Remembers the videos and the losses of every micro-batch; kills the run if told to."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.stop_before = stop_before
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == self.stop_before:
            raise KeyError("killed")

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        losses = {name: float(loss) for name, loss in outputs["losses"].items()}
        self.seen.append((len(batch["video_id"]), losses))
        self.logged.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def test_values_are_means_since_the_last_line(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    """Steps of two micro-batches of different size; a line every three steps."""
    sizes = [4, 2, 6, 2, 2, 2, 4, 4, 6, 4, 2, 2, 2, 6]
    batches = [make_batch(range(size)) for size in sizes]
    recorder = Recorder()
    module = make_module(queue_size=1000)
    fit(module, batches, recorder, accumulate_grad_batches=2, log_every_n_steps=3)
    assert [size for size, _ in recorder.seen] == sizes
    assert not any(recorder.logged[:5])
    for line in (range(6), range(6, 12)):
        part = [recorder.seen[i] for i in line]
        for name in ("inter", "video", "intra", "order"):
            mean = sum(n * losses[name] for n, losses in part) / sum(n for n, _ in part)
            logged = recorder.logged[line[-1]][f"train/{name}/loss"]
            assert logged == pytest.approx(mean, rel=1e-6)
        # The queue's state is that of the moment, when the keys of this step are not in it yet.
        keys = 3 * sum(sizes[: line[-1] - 1])
        assert recorder.logged[line[-1]]["train/inter/queue_fill"] == pytest.approx(keys / 1000)


def test_the_last_steps_of_an_epoch_are_a_line_of_their_own(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    recorder = Recorder()
    trainer = fit(
        make_module(), [make_batch(range(n)) for n in (4, 2, 6, 2)], recorder, log_every_n_steps=3
    )
    assert [size for size, _ in recorder.seen] == [4, 2, 6, 2]
    last = recorder.seen[-1][1]["video"]
    assert float(trainer.callback_metrics["train/video/loss"]) == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize("stop_before", [2, 6])
def test_a_stop_between_two_lines_changes_no_line(
    make_module: Callable[..., Any],
    make_batch: Callable[..., Any],
    fit: Callable[..., Any],
    tmp_path: Path,
    stop_before: int,
) -> None:
    batches = [make_batch(range(4))] * 4  # alike: this loader does not know where it was

    def train(folder: Path, stop: int | None = None) -> list[dict[str, str]]:
        last = folder / "last.ckpt"
        saving = ResumableCheckpoint(directory=folder, every_n_steps=1, min_minutes=0)
        options = {"max_epochs": 2, "log_every_n_steps": 3, "logger": CSVLogger(directory=folder)}
        options |= {"enable_checkpointing": True, "callbacks": [Recorder(stop), saving]}
        checkpoint = str(last) if last.exists() else None
        fit(make_module(), batches, ckpt_path=checkpoint, **options)
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    whole = train(tmp_path / "whole")
    assert [row["step"] for row in whole] == ["2", "3", "5", "7"]  # epochs of four steps
    with pytest.raises(KeyError, match="killed"):
        train(tmp_path / "cut", stop_before)
    saved = torch.load(tmp_path / "cut/last.ckpt", weights_only=True)
    assert saved["global_step"] == stop_before - 1  # with one step of the next line
    assert [part["ranks"].shape[0] for part in saved["measured"]] == [1]
    assert train(tmp_path / "cut") == whole
