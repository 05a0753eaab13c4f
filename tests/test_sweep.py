"""A sweep ends in one table, however its jobs end."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vclr_lightning import train
from vclr_lightning.app.sweep_table import (
    Job,
    failure_notes,
    forget_jobs,
    measures_of,
    read_jobs,
    record_job,
    sweep_rows,
    sweep_screen,
    write_table,
)

Main = Callable[..., SimpleNamespace]

TINY = [
    "-m",
    "backbone=tiny",
    "backbone.width=4",
    "backbone.stages=1",
    "trainer=cpu",
    "image_size=32",
    "queue_size=16",
    "epochs=1",
    "trainer.limit_train_batches=1",
    "data.num_workers=0",
    "data.holdout=0.34",
    "name=sweep",
]
FOLDER = Path("outputs/pretrain/sweep")
BREAKS = """
from pytorch_lightning import Callback

class Breaks(Callback):
    def on_train_batch_start(self, *args):
        raise RuntimeError("a fault\\nof the program")

class Stops(Callback):
    def on_train_batch_start(self, *args):
        raise SystemExit(143)
"""


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    indexed: Callable[[Path], str],
) -> Main:
    """Run the command in this process, in an empty folder."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    def run(*arguments: object) -> SimpleNamespace:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    (tmp_path / "breaks.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    return run


def _csv() -> list[dict[str, str]]:
    with (FOLDER / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_jobs_that_succeed_and_one_that_cannot(main: Main, video_folder: Path) -> None:
    done = main(*TINY, f"data.root={video_folder}", "batch_size=1000,4,6")
    assert done.code == 2
    rows = _csv()
    assert [(row["job"], row["batch_size"]) for row in rows] == [
        ("0", "1000"),
        ("1", "4"),
        ("2", "6"),
    ]
    assert "epochs" not in rows[0]  # the same in all
    assert [row["status"].partition(":")[0] for row in rows] == ["failed", "done", "done"]
    assert "12 training videos" in rows[0]["status"]
    for row in rows[1:]:
        folder = Path(row["folder"])
        assert (folder / "last.ckpt").exists()
        result = json.loads((folder / "result.json").read_text())
        assert float(row["best"]) == result["best"]
    assert rows[0]["best"] == ""
    lines = (FOLDER / "sweep.md").read_text().splitlines()
    assert len(lines) == 2 + 3
    assert lines[0].startswith("| job | batch_size | best |")
    assert "sweep of 3 jobs" in done.out
    assert "sweep.csv" in done.out
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert "1 of 3 jobs failed, the first one, job 0: there are 12 training videos" in sentence
    assert "Traceback" not in done.err


def test_a_fault_of_the_program_does_not_end_the_sweep(main: Main, video_folder: Path) -> None:
    faulty = "+callbacks.more._target_=breaks.Breaks,pytorch_lightning.Callback"
    done = main(*TINY, f"data.root={video_folder}", "batch_size=4", "callbacks.online=null", faulty)
    assert done.code == 1
    assert [row["status"] for row in _csv()] == [
        "failed: RuntimeError: a fault of the program",
        "done",
    ]
    assert "breaks.py" in (next(FOLDER.glob("*Breaks*/train.log"))).read_text()


def test_a_job_that_is_stopped_ends_the_sweep_with_its_table(
    main: Main, video_folder: Path
) -> None:
    arguments = [*TINY, f"data.root={video_folder}", "batch_size=4", "callbacks.online=null"]
    stops = "+callbacks.more._target_=pytorch_lightning.Callback,breaks.Stops"
    done = main(*arguments, stops)
    assert done.code == 143
    assert [row["status"] for row in _csv()] == ["done", "stopped"]


def test_a_job_of_several_processes_has_the_users_options_and_says_why_it_failed(
    video_folder: Path, tmp_path: Path
) -> None:
    options = tmp_path / "my conf"
    (options / "experiment").mkdir(parents=True)
    (options / "experiment/mine.yaml").write_text("# @package _global_\nnum_segments: 0\n")
    mine = ["--config-dir", "my conf", *TINY, "+experiment=mine"]
    command = [*mine, f"data.root={video_folder}", "trainer.devices=2"]
    done = subprocess.run(
        [sys.executable, "-m", "vclr_lightning.train", *command],
        cwd=tmp_path,
        env={**os.environ, "HYDRA_FULL_ERROR": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    with (tmp_path / FOLDER / "sweep.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "num_segments=0 must be a whole number" in row["status"]


def test_a_single_run_writes_no_table(main: Main, video_folder: Path) -> None:
    done = main(*TINY[1:], f"data.root={video_folder}", "batch_size=4", "callbacks.online=null")
    assert done.code == 0, done.err
    assert not list(FOLDER.glob("sweep.*"))
    assert not (FOLDER / ".jobs").exists()


def test_a_single_run_that_fails_is_no_job(main: Main, video_folder: Path) -> None:
    done = main(*TINY[1:], f"data.root={video_folder}", "batch_size=1000")
    assert done.code == 2
    assert "job" not in done.out + done.err
    log = FOLDER / "train.log"
    assert not log.exists() or "job" not in log.read_text()


def test_jobs_of_an_earlier_sweep_are_forgotten(tmp_path: Path) -> None:
    for number in (10, 2):
        record_job(tmp_path, Job(number=number, overrides=["a=1"], folder="x"))
    assert [job.number for job in read_jobs(tmp_path)] == [2, 10]
    forget_jobs(tmp_path)
    assert read_jobs(tmp_path) == []


def test_a_sweep_without_a_job_leaves_the_earlier_table(tmp_path: Path) -> None:
    record_job(tmp_path, Job(number=0, overrides=["seed=1"], folder="a"))
    assert len(write_table(tmp_path)) == 1
    before = (tmp_path / "sweep.csv").read_text()
    forget_jobs(tmp_path)
    assert write_table(tmp_path) == []
    assert (tmp_path / "sweep.csv").read_text() == before


def _many(keys: int, jobs: int = 3) -> list[Job]:
    """Jobs that differ in many keys, some long or ambiguous, with many measures."""
    names = [f"objective.samplers.view{k}.number_of_segments" for k in range(keys - 1)]
    measures = ["train/loss", *(f"val/measure_{k}" for k in range(9)), "best"]
    return [
        Job(
            number=j,
            overrides=["backbone=" + "abcdefghij" * 4 + str(j), *(f"+{n}={j}.25" for n in names)],
            folder=f"/a/very/long/folder/of/the/job/{j}",
            values=dict.fromkeys(measures, 0.123456 + j) if j else {},
            status="done" if j else "failed",
            reason="" if j else "a reason that goes on and on, " * 9,
        )
        for j in range(jobs)
    ]


@pytest.mark.parametrize("keys", [1, 2, 3, 12])
def test_the_table_fits_80_columns_whatever_differs(keys: int) -> None:
    from vclr_lightning.core.screen import screen

    jobs = _many(keys)
    console = screen(width=80, record=True, file=io.StringIO())
    console.print(sweep_screen(jobs, width=80))
    shown = console.export_text()
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert "best" in lines[2] if keys == 1 else "best" in shown
    assert "val/measure_0" in shown
    assert "train/loss" not in shown
    assert "abcdefghij…" in shown
    words = "".join(character for character in shown if character not in "│ \n")
    for k in range(keys - 1):  # every key, shortened where that is unambiguous
        assert f"view{k}" in words or keys == 2
    assert shown.count("done") == 2
    (note,) = failure_notes(jobs, width=80)
    assert len(note) <= 80
    assert note.startswith("job 0: a reason that goes on")


def test_measures_of_the_table_are_best_then_validation() -> None:
    jobs = _many(1)
    assert measures_of(jobs)[:3] == ["best", "val/measure_0", "val/measure_1"]
    assert measures_of(jobs)[-1] == "train/loss"


def test_special_characters_are_escaped_and_csv_is_exact(tmp_path: Path) -> None:
    record_job(tmp_path, Job(number=0, overrides=["b.c=x=y"], folder="a|b", values={"x": 1 / 3}))
    record_job(tmp_path, Job(number=1, overrides=["+b.c=z"], folder="c"))
    write_table(tmp_path)
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    assert lines[0] == "| job | b.c | x | status | folder |"
    assert lines[2] == "| 0 | x=y | 0.3333 | stopped | a\\|b |"
    row = next(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert float(row["x"]) == 1 / 3


def test_a_table_parses_each_job_once() -> None:
    """It is written after every job: what grows with the square of them would add up."""
    parsed: list[str] = []

    class Override(str):
        def lstrip(self, chars: str | None = None) -> str:  # type: ignore[override]
            parsed.append(self)
            return super().lstrip(chars)

    jobs = [
        Job(number=k, overrides=[Override(f"seed={k}"), Override("lr=1")], folder=f"{k}")
        for k in range(300)
    ]
    assert sweep_rows(jobs, [], digits=4)[-1] == ["299", "299", "stopped", "299"]
    assert len(parsed) == 600
