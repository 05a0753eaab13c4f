"""A run that is killed or stopped anywhere ends exactly as one that never was."""

from __future__ import annotations

import csv
import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Fork = Callable[[list[str], Path], Any]

RUN = Path("outputs/pretrain/demo")
EPOCHS, STEPS = 4, 3


@pytest.fixture(scope="module")
def arguments(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny run on real videos, with two workers: 12 steps of 4 of 12 videos, 6 held out."""
    return [
        "name=demo",
        "backbone=tiny",
        "trainer=cpu",
        "trainer.log_every_n_steps=1",
        "optim.base_lr=0.5",
        "optim.scheduler.warmup_epochs=1",
        "callbacks.online.every_n_epochs=2",
        f"data.root={video_folder}",
        f"data.cache_dir={tmp_path_factory.mktemp('index')}",
        "data.holdout=0.34",
        "data.num_workers=2",
        "batch_size=4",
        f"epochs={EPOCHS}",
        "image_size=32",
        "backbone.width=8",
        "backbone.stages=2",
        "queue_size=50",
        "callbacks.checkpoint.every_n_steps=2",
    ]


def _rows(folder: Path) -> list[dict[str, str]]:
    """What was logged, without the times."""
    with (folder / RUN / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def _state(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / RUN / "last.ckpt", weights_only=True)
    del state["metadata"]
    return state


def assert_same(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def uninterrupted(
    arguments: list[str], fork: Fork, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Rows and state of the run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    process = fork(arguments, folder)
    assert process.wait() == 0, process.output()
    return _rows(folder), _state(folder)


@pytest.mark.parametrize("seed", range(5))
def test_two_random_stops_change_nothing(
    seed: int,
    arguments: list[str],
    uninterrupted: tuple[list[dict[str, str]], dict[str, Any]],
    fork: Fork,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    """Ten stops in all: kill -9 at any moment, SIGTERM and Ctrl-C between two steps."""
    rng = random.Random(seed)
    kinds = [signal.SIGKILL, rng.choice([signal.SIGTERM, signal.SIGINT])]
    rng.shuffle(kinds)
    stop_after = sorted(rng.sample(range(1, EPOCHS * STEPS), 2))
    for kind, rows in zip(kinds, stop_after, strict=True):
        saving = f"callbacks.checkpoint.min_minutes={rng.choice(['0', 'null'])}"
        process = fork([*arguments, saving], tmp_path)
        if wait_for_rows(process, tmp_path / RUN / "metrics.csv", rows):
            time.sleep(rng.random() * 0.1)
            process.send(kind)
        status = process.wait()
        # A run may end before the signal arrives.
        expected = -signal.SIGKILL if kind == signal.SIGKILL else 128 + kind
        assert status in (expected, 0), process.output()
        if status > 0:
            assert "the same command continues" in process.output()
    process = fork(arguments, tmp_path)
    assert process.wait() == 0, process.output()
    rows, state = uninterrupted
    assert _rows(tmp_path) == rows
    assert_same(_state(tmp_path), state)


def test_augmenting_on_the_device_and_a_stop_change_nothing(
    arguments: list[str],
    uninterrupted: tuple[list[dict[str, str]], dict[str, Any]],
    fork: Fork,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    """Killed, and continued, it ends to the last bit like the run whose workers augment."""
    on_device = [*arguments, "data.augment=device"]
    process = fork(on_device, tmp_path)
    wait_for_rows(process, tmp_path / RUN / "metrics.csv", 5)
    process.send(signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 0), process.output()
    process = fork(on_device, tmp_path)
    assert process.wait() == 0, process.output()
    rows, state = uninterrupted
    assert _rows(tmp_path) == rows
    assert_same(_state(tmp_path), state)


def test_a_run_of_so_many_steps_ends_within_an_epoch(
    arguments: list[str], fork: Fork, wait_for_rows: Callable[..., bool], tmp_path: Path
) -> None:
    """The held-out videos are evaluated after every few steps and at the end, resumed or not."""
    length = ["epochs=null", "steps=8", "+optim.scheduler.warmup_steps=2"]
    words = [*arguments, *length, "callbacks.online.every_n_steps=4"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    process = fork(words, whole)
    assert process.wait() == 0, process.output()
    process = fork(words, stopped)
    wait_for_rows(process, stopped / RUN / "metrics.csv", 4)
    process.send(signal.SIGTERM)
    assert process.wait() in (128 + signal.SIGTERM, 0), process.output()
    process = fork(words, stopped)
    assert process.wait() == 0, process.output()
    rows = _rows(whole)
    assert _rows(stopped) == rows
    assert_same(_state(stopped), _state(whole))
    steps = [int(row["step"]) for row in rows if row["val/instance_r1"]]
    assert [step for step in steps if step > 0] == [5, 7]  # counted from 0: epochs of 3 steps
    assert float(rows[-1]["train/lr"]) < 0.1 * max(float(row["train/lr"] or 0) for row in rows)


def test_measuring_before_the_first_step_changes_nothing(
    arguments: list[str],
    uninterrupted: tuple[list[dict[str, str]], dict[str, Any]],
    fork: Fork,
    tmp_path: Path,
) -> None:
    """Weights, optimizer, queues, random state: the same bits, and the first values are there."""
    process = fork([*arguments, "callbacks.online.at_start=false"], tmp_path)
    assert process.wait() == 0, process.output()
    rows, state = uninterrupted
    found = _state(tmp_path)
    kept = [dict(one, callbacks={}) for one in (found, state)]
    assert_same(*kept)
    measured = json.loads((tmp_path / RUN / "result.json").read_text())
    assert not any(name.startswith("start/") for name in measured)
    first, *others = _rows(tmp_path)
    assert first["val/instance_r1"] == ""
    assert 0 <= float(rows[0]["val/instance_r1"]) <= 1
    assert rows[0]["start/val/instance_r1"] == rows[0]["val/instance_r1"]
    new = [name for name in rows[0] if name.startswith("start/")]
    assert [{k: v for k, v in row.items() if k not in new} for row in rows[1:]] == others
