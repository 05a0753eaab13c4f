"""Several ranks of one run stop together, and continue exactly."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Ranks = Callable[[list[str], Path], list[Any]]
RUN = Path("outputs/pretrain/ranks")

BREAKS = """
from pytorch_lightning import Callback

class Breaks(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 5:
            next(iter(module.query_encoder.parameters())).data.fill_(float("nan"))
"""


@pytest.fixture(scope="module")
def arguments(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two ranks of a tiny run: 6 steps of 4 of 12 videos."""
    return [
        "name=ranks",
        f"data.root={video_folder}",
        f"data.cache_dir={tmp_path_factory.mktemp('index')}",
        "data.holdout=0.34",
        "data.num_workers=1",
        "backbone=tiny",
        "backbone.width=4",
        "backbone.stages=1",
        "trainer=cpu",
        "trainer.log_every_n_steps=1",
        "optim.base_lr=0.5",
        "optim.scheduler.warmup_epochs=1",
        "batch_size=4",
        "epochs=2",
        "image_size=32",
        "queue_size=50",
        "callbacks.checkpoint.every_n_steps=1",
    ]


@pytest.fixture(scope="module")
def whole(
    arguments: list[str], fork_ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of two ranks that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    ranks = fork_ranks(arguments, folder)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()
    return folder


def _assert_same_state(one: Path, other: Path) -> None:
    a, b = (torch.load(f / RUN / "last.ckpt", weights_only=True) for f in (one, other))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / RUN / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def test_ranks_stop_together_and_continue_exactly(
    arguments: list[str],
    whole: Path,
    fork_ranks: Ranks,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    stopped = tmp_path / "stopped"
    ranks = fork_ranks(arguments, stopped)
    assert wait_for_rows(ranks[0], stopped / RUN / "metrics.csv", 1)
    ranks[1].send(signal.SIGTERM)  # to one of them
    assert [rank.wait() for rank in ranks] == [143, 0]
    assert "the same command continues" in ranks[0].output()
    assert "step 6" not in ranks[0].output()

    ranks = fork_ranks(arguments, stopped)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()
    assert _rows(stopped) == _rows(whole)
    _assert_same_state(stopped, whole)


WATCHES = """
import json, os, signal
from pathlib import Path
from pytorch_lightning import Callback

class Watches(Callback):
    def __init__(self, stop):
        self.stop = stop

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        line = json.dumps([step, trainer.world_size, batch["video_id"].tolist()])
        with Path(f"videos{trainer.global_rank}.jsonl").open("a") as file:
            file.write(line + "\\n")
        if step == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
"""


def _batches(folder: Path) -> dict[int, tuple[int, list[int]]]:
    """Processes and videos of each step."""
    found: dict[int, tuple[int, list[int]]] = {}
    for rank in range(2):
        file = folder / f"videos{rank}.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            step, world, videos = json.loads(line)
            found[step] = (world, sorted([*found.get(step, (0, []))[1], *videos]))
    return found


def test_a_run_goes_on_with_another_number_of_processes(
    arguments: list[str], fork_ranks: Ranks, fork: Callable[..., Any], tmp_path: Path
) -> None:
    # Without BatchNorm, whose statistics are of what one process sees.
    same = ["backbone.norm=group", "+callbacks.watch._target_=watches_videos.Watches"]
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    for folder in (whole, moved):
        folder.mkdir()
        (folder / "watches_videos.py").write_text(WATCHES)
    one = fork([*arguments, *same, "+callbacks.watch.stop=-1"], whole)
    assert one.wait() == 0, one.output()

    one = fork([*arguments, *same, "+callbacks.watch.stop=2"], moved)
    assert one.wait() == 143, one.output()
    other = fork([*arguments, *same, "+callbacks.watch.stop=-1", "queue_size=40"], moved)
    assert other.wait() == 2
    assert "queue_size=50 (now 40)" in other.output()
    ranks = fork_ranks([*arguments, *same, "+callbacks.watch.stop=4"], moved)
    assert [rank.wait() for rank in ranks] == [143, 0], ranks[0].output()
    assert "continuing on 2 process(es) what 1 began" in (moved / RUN / "train.log").read_text()
    one = fork([*arguments, *same, "+callbacks.watch.stop=-1"], moved)
    assert one.wait() == 0, one.output()

    expected, found = _batches(whole), _batches(moved)
    assert [world for world, _ in found.values()] == [1, 1, 2, 2, 1, 1]
    assert {s: v for s, (_, v) in found.items()} == {s: v for s, (_, v) in expected.items()}
    losses = [[float(row["train/loss"]) for row in _rows(f)] for f in (whole, moved)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_ranks_that_augment_on_their_devices_end_as_those_whose_workers_do(
    arguments: list[str], whole: Path, fork_ranks: Ranks, tmp_path: Path
) -> None:
    ranks = fork_ranks([*arguments, "data.augment=device"], tmp_path)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()
    assert _rows(tmp_path) == _rows(whole)
    _assert_same_state(tmp_path, whole)


def test_a_loss_that_breaks_on_one_rank_stops_all(
    arguments: list[str], fork_ranks: Ranks, tmp_path: Path
) -> None:
    (tmp_path / "breaks_one_rank.py").write_text(BREAKS)
    extra = [
        "+callbacks.breaks._target_=breaks_one_rank.Breaks",
        "callbacks.checkpoint.every_n_steps=2",
        "callbacks.checkpoint.min_minutes=0",
    ]
    ranks = fork_ranks([*arguments, *extra], tmp_path)
    assert [rank.wait() for rank in ranks] == [2, 2], ranks[0].output()
    assert "the loss is not finite in step 5" in ranks[0].output()
    with (tmp_path / RUN / "non_finite.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert {row["rank"] for row in listed} == {"1"}
    assert len(listed) == 2
    assert all(Path(row["path"]).exists() for row in listed)
    saved = torch.load(tmp_path / RUN / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(t.isfinite().all() for t in saved["state_dict"].values())


def test_the_command_launches_the_ranks_of_a_sweep_s_jobs(
    arguments: list[str], command: Callable[..., Any], tmp_path: Path
) -> None:
    varied = ["-m", *arguments, "trainer.devices=2", "epochs=1", "num_segments=2,3"]
    done = command([*varied, "trainer.log_every_n_steps=50"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stdout + done.stderr  # of metrics that an epoch's end logs
    for number in (2, 3):  # the second job finds nothing of the first one's processes
        job = tmp_path / RUN / f"num_segments={number}"
        saved = torch.load(job / "last.ckpt", weights_only=True)
        assert (saved["epoch"], len(saved["random_states"])) == (1, 2)
    with (tmp_path / RUN / "sweep.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done"]
