"""Finetuning that is killed and stopped ends exactly as one that never was."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RUN = Path("outputs/finetune/cut")


def _left(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any], bytes, dict[str, Any]]:
    """Rows without times, checkpoint, predictions and measures of a run."""
    with (folder / RUN / "metrics.csv").open() as file:
        rows = [
            {name: value for name, value in row.items() if not name.startswith("perf/")}
            for row in csv.DictReader(file)
        ]
    state = torch.load(folder / RUN / "last.ckpt", weights_only=True)
    del state["metadata"]
    predictions = (folder / RUN / "predictions.csv").read_bytes()
    return rows, state, predictions, json.loads((folder / RUN / "finetune.json").read_text())


def _assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_same(x, y)
    else:
        assert a == b


def test_a_stopped_run_is_the_uninterrupted_one(
    video_folder: Path,
    tmp_path: Path,
    fork: Callable[..., Any],
    wait_for_rows: Callable[..., bool],
) -> None:
    arguments = [
        *("stage=finetune", "name=cut", "backbone=tiny", "backbone.width=8", "backbone.stages=2"),
        *("trainer=cpu", "trainer.log_every_n_steps=1", "trainer.gradient_clip_val=1"),
        *("module.head=tsm", "num_segments=3", "optim.base_lr=2", "image_size=32", "batch_size=4"),
        *("epochs=4", "optim.scheduler.milestones=[1,3]", "callbacks.online.every_n_epochs=2"),
        *("callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.min_minutes=0"),
        *("data.holdout=0.34", "data.num_workers=2"),
        *(f"data.root={video_folder}", f"data.cache_dir={tmp_path / 'index'}"),
    ]
    whole = fork(arguments, tmp_path / "whole")
    assert whole.wait() == 0, whole.output()
    cut = tmp_path / "cut"
    for kind, rows in ((signal.SIGKILL, 4), (signal.SIGTERM, 7)):
        process = fork(arguments, cut)
        if wait_for_rows(process, cut / RUN / "metrics.csv", rows):
            process.send(kind)
        status = process.wait()
        assert status in (-signal.SIGKILL, 128 + signal.SIGTERM, 0), process.output()
    process = fork(arguments, cut)
    assert process.wait() == 0, process.output()
    _assert_same(_left(cut), _left(tmp_path / "whole"))
