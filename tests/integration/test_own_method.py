"""A project outside the package, through the command line: train, stop, resume, evaluate, sweep."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_method"
ROOT = Path(__file__).parents[2]
COMMON = (
    *("--config-dir", "conf", "image_size=32", "batch_size=4", "queue_size=16"),
    *("trainer=cpu", "trainer.log_every_n_steps=1", "data.holdout=0.34", "data.num_workers=0"),
)
NEAREST = ("objective=nearest", "backbone=tiny", "backbone.width=8", "backbone.stages=2")
ARROW = ("objective=arrow", "backbone=small", "backbone.width=8", "frames_per_clip=4")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, in which the commands run."""
    copy = tmp_path_factory.mktemp("project") / "own_method"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    return copy


@pytest.fixture
def videos(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    cache = tmp_path_factory.getbasetemp() / "index_of_own_method"
    return f"data.root={video_folder}", f"data.cache_dir={cache}"


def _run(fork: Callable[..., Any], arguments: tuple[str, ...], folder: Path) -> str:
    process = fork(arguments, folder)
    assert process.wait() == 0, process.output()
    output: str = process.output()
    return output


def _ended(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with (folder / "metrics.csv").open() as file:
        rows = [
            {name: value for name, value in row.items() if not name.startswith("perf/")}
            for row in csv.DictReader(file)
        ]
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"], rows


@pytest.mark.parametrize(
    "path", sorted((EXAMPLE / "own_method").glob("*.py")), ids=lambda p: p.name
)
def test_each_part_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    ("method", "state"),
    [(NEAREST, "objectives.nearest.queue.rows"), (ARROW, "query_encoder.body.0.weight")],
    ids=["nearest", "arrow"],
)
def test_it_trains_stops_and_resumes_bit_by_bit(
    fork: Callable[..., Any],
    wait_for_rows: Callable[..., bool],
    project: Path,
    videos: tuple[str, str],
    method: tuple[str, ...],
    state: str,
) -> None:
    arguments = (*COMMON, *method, *videos, "epochs=4")
    runs = project / "outputs" / "pretrain"
    name = method[0].partition("=")[2]
    _run(fork, (*arguments, f"name={name}"), project)
    process = fork((*arguments, f"name={name}_cut"), project)
    if wait_for_rows(process, runs / f"{name}_cut" / "metrics.csv", 4):
        process.send(signal.SIGTERM)
    assert process.wait() in (128 + signal.SIGTERM, 0), process.output()
    _run(fork, (*arguments, f"name={name}_cut"), project)

    (whole, rows), (cut, others) = (_ended(runs / one) for one in (name, f"{name}_cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert rows == others
    assert state in whole
    assert f"train/{name}/loss" in rows[0]
    assert any(row["val/instance_r1"] for row in rows)


def test_it_is_evaluated_and_finetuned(
    fork: Callable[..., Any], project: Path, videos: tuple[str, str]
) -> None:
    _run(fork, (*COMMON, *ARROW, *videos, "epochs=1", "name=used"), project)
    weights = project / "outputs" / "pretrain" / "used" / "last.ckpt"
    spec = torch.load(weights, weights_only=True)["metadata"]["backbone"]
    assert spec["_target_"] == "own_method.network.SmallVideoNet"
    assert spec["width"] == 8

    evaluated = (*COMMON[:2], *COMMON[5:], *videos, f"ckpt={weights}")
    _run(fork, (*evaluated, "stage=linear_probe", "run_dir=outputs/probe"), project)
    measured = json.loads((project / "outputs" / "probe" / "result.json").read_text())
    assert 0 <= measured["top1"] <= 100
    _run(fork, (*evaluated, "stage=retrieval", "run_dir=outputs/retrieval"), project)
    assert (project / "outputs" / "retrieval" / "report.html").is_file()

    finetune = ("stage=finetune", f"init={weights}", *ARROW[1:], "epochs=1", "num_segments=2")
    _run(fork, (*COMMON[:4], *COMMON[5:], *videos, *finetune, "run_dir=outputs/tuned"), project)
    said = json.loads((project / "outputs" / "tuned" / "finetune.json").read_text())
    assert "SmallVideoNet" in json.dumps(said)


def test_a_sweep_on_two_processes(
    command: Callable[..., Any], project: Path, videos: tuple[str, str]
) -> None:
    sweep = ("-m", *COMMON[:4], *COMMON[5:], *NEAREST, *videos, "trainer.devices=2")
    done = command((*sweep, "queue_size=8,16", "epochs=1", "name=sweep"), project)
    assert done.returncode == 0, done.stderr
    for size in (8, 16):
        folder = project / "outputs" / "pretrain" / "sweep" / f"queue_size={size}"
        queue = _ended(folder)[0]["objectives.nearest.queue.rows"]
        assert queue.shape == (size, 64)
