"""Sweeps by launchers and by Optuna: every job has a folder of its own and a row in the table."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TINY = [
    *("backbone=tiny", "backbone.width=4", "backbone.stages=1", "trainer=cpu", "trainer.threads=1"),
    *("image_size=32", "queue_size=16", "batch_size=4", "epochs=1", "name=sweep"),
    *("trainer.limit_train_batches=1", "data.num_workers=0", "data.holdout=0.34"),
]


def sweep(folder: Path, videos: Path, *words: str) -> tuple[str, list[dict[str, str]]]:
    """Run a sweep to its end; return what it printed, and the rows of its table."""
    done = subprocess.run(
        [sys.executable, "-m", "vclr_lightning.train", "-m", *TINY, f"data.root={videos}", *words],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with (folder / "outputs/pretrain/sweep/sweep.csv").open() as file:
        return done.stdout + done.stderr, list(csv.DictReader(file))


def test_joblib_runs_jobs_at_a_time(video_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    said, rows = sweep(tmp_path, video_folder, "+sweep=parallel", "num_segments=2,3")
    assert "sweep of 2 jobs" in said
    assert [(row["num_segments"], row["status"]) for row in rows] == [("2", "done"), ("3", "done")]
    assert [Path(row["folder"]).name for row in rows] == ["num_segments=2", "num_segments=3"]
    assert all(0 <= float(row["best"]) <= 1 for row in rows)


def test_submitit_runs_jobs_as_commands_of_its_own(video_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["hydra/launcher=submitit_local", "num_segments=choice(2)"]
    _, (row,) = sweep(tmp_path, video_folder, *words)
    assert row["status"] == "done"
    # The job's process does not have the sweep's arguments, and finds its folder all the same.
    assert Path(row["folder"]) == tmp_path / "outputs/pretrain/sweep/num_segments=2"
    assert (Path(row["folder"]) / "last.ckpt").is_file()


def test_optuna_searches_weights_and_temperature(video_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["+sweep=losses", "hydra.sweeper.n_trials=2"]
    said, rows = sweep(tmp_path, video_folder, *words)
    assert "sweep of 2 jobs" in said
    assert [row["status"] for row in rows] == ["done", "done"]
    searched = {f"objective.weights.{name}": (0, 2) for name in ("intra", "video", "order")}
    searched |= {"objective.objectives.inter.temperature": (0.03, 0.3)}
    for key, (low, high) in searched.items():
        tried = [float(row[key]) for row in rows]
        assert low <= min(tried) < max(tried) <= high
        for row, value in zip(rows, tried, strict=True):
            node = yaml.safe_load((Path(row["folder"]) / "config.yaml").read_text())
            for part in key.split("."):
                node = node[part]
            assert math.isclose(node, value)
    best = yaml.safe_load(
        (tmp_path / "outputs/pretrain/sweep/optimization_results.yaml").read_text()
    )
    assert best["best_value"] == max(float(row["best"]) for row in rows)
