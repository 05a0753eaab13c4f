"""Commands in W&B, read from the files of offline runs: settings, measures, media, ends."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Main = Callable[..., SimpleNamespace]
Sessions = Callable[[Path], list[Any]]

OFFLINE = ["logger=wandb", "logger.wandb.offline=true"]
CALLBACKS = """
import os, signal
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger

class Signal(Callback):
    def __init__(self, signum, step):
        self.signum, self.step = signum, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step and not os.path.exists("signalled"):
            open("signalled", "w").close()
            os.kill(os.getpid(), self.signum)

class Broken(Logger):
    name = version = "broken"
    calls = 0

    def __init__(self, begins=True):
        super().__init__()
        self.begins = begins

    def log_hyperparams(self, params):
        if not self.begins:
            raise ConnectionError("no route to host")

    def log_metrics(self, metrics, step=None):
        Broken.calls += 1
        raise ConnectionError("no route to host")
"""


@pytest.fixture
def callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "told_callbacks.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "told_callbacks", raising=False)
    return "told_callbacks"


def test_a_sweep_is_a_group_of_runs_with_settings_directions_and_summaries(
    main: Main, tiny: list[str], sessions: Sessions
) -> None:
    done = main("-m", *tiny, *OFFLINE, "num_segments=2,3", "name=segments")
    assert done.code == 0, done.err
    for segments in (2, 3):
        folder = Path(f"outputs/pretrain/segments/num_segments={segments}")
        (found,) = sessions(folder)
        run = found.run
        assert (run.run_group, run.job_type) == ("segments", "pretrain")
        assert run.display_name == f"segments/num_segments={segments}"
        assert list(run.tags) == [f"num_segments={segments}"]
        assert (found.config["num_segments"], found.config["seed"]) == (segments, 0)
        assert found.config["choice"]["objective"] == "vclr"
        assert found.config["backbone"]["width"] == 4
        assert found.config["stage"] == "pretrain"
        assert "logger" not in found.config
        assert found.metrics["val/instance_r1"] == ("epoch", {"max", "last"})
        assert found.metrics["train/inter/loss"] == ("", {"min", "last"})
        assert found.metrics["train/inter/top1"] == ("", {"max", "last"})
        assert "train/lr" not in found.metrics
        losses = found.rows("train/loss")
        assert len(losses) >= 2
        assert min(losses.values()) == found.summary["train/loss"]["min"]
        untrained, best = found.rows("val/instance_r1").values()
        assert found.rows("start/val/instance_r1") == {0: untrained}
        assert found.summary["best"] == best
        assert (found.summary["state"], found.exit_code) == ("finished", 0)


def test_a_stopped_run_is_no_finished_one_and_continues(
    main: Main, tiny: list[str], sessions: Sessions, callbacks: str
) -> None:
    stops = [f"+callbacks.told._target_={callbacks}.Signal", "+callbacks.told.signum=15"]
    command = [*tiny, *OFFLINE, *stops, "+callbacks.told.step=1"]
    assert main(*command).code == 128 + signal.SIGTERM
    done = main(*command)
    assert done.code == 0, done.err
    first, second = sessions(Path("outputs/pretrain/default"))
    assert (first.summary["state"], first.exit_code) == ("stopped", 143)
    assert first.preempting
    assert (second.summary["state"], second.exit_code) == ("finished", 0)
    assert first.run.run_id == second.run.run_id
    steps = [*first.rows("train/loss"), *second.rows("train/loss")]
    assert sorted({*steps}) == list(range(len({*steps})))


@pytest.mark.slow
def test_a_killed_run_continues_as_the_same_one(
    main: Main, tiny: list[str], sessions: Sessions, callbacks: str, tmp_path: Path
) -> None:
    kill = [f"+callbacks.told._target_={callbacks}.Signal", "+callbacks.told.signum=9"]
    save = ["callbacks.checkpoint.every_n_steps=1", "callbacks.checkpoint.min_minutes=0"]
    command = [*tiny, *OFFLINE, *kill, *save, "+callbacks.told.step=2", "epochs=2"]
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}  # of this process
    with (tmp_path / "said").open("wb") as said:  # W&B's own process would hold a pipe open
        killed = subprocess.run(
            [sys.executable, "-m", "vclr_lightning.train", *command],
            env=environment | {"PYTHONPATH": str(tmp_path)},
            stdout=said,
            stderr=said,
            check=False,
        )
    assert killed.returncode == -signal.SIGKILL, (tmp_path / "said").read_text()
    done = main(*command)
    assert done.code == 0, done.err
    first, second = sessions(Path("outputs/pretrain/default"))
    assert first.exit_code is None
    assert (second.summary["state"], second.exit_code) == ("finished", 0)
    assert first.run in (None, second.run) or first.run.run_id == second.run.run_id
    earlier, later = first.rows("train/loss"), second.rows("train/loss")
    assert {*earlier} | {*later} == set(range(max(later) + 1))  # also what W&B had not written yet
    assert len({*earlier} & {*later}) <= 1
    with Path("outputs/pretrain/default/metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): row["train/loss"] for row in csv.DictReader(file)}
    assert {step: float(loss) for step, loss in rows.items() if loss} == earlier | later


def test_a_failed_run_says_why(main: Main, tiny: list[str], sessions: Sessions) -> None:
    done = main(*tiny, *OFFLINE, "optim.base_lr=1e30", "callbacks.online=null", "epochs=3")
    assert done.code != 0
    (found,) = sessions(Path("outputs/pretrain/default"))
    assert (found.summary["state"], found.exit_code) == ("failed", 1)
    assert "finite" in found.summary["reason"]


def test_a_logger_that_fails_is_one_warning_and_wandb_is_not_imported_for_others(
    main: Main, tiny: list[str], callbacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    broken = f"+logger.broken._target_={callbacks}.Broken"
    done = main(*tiny, broken, "callbacks.online=null", "monitor=null")
    assert done.code == 0, done.err
    log = Path("outputs/pretrain/default/train.log").read_text()
    assert log.count("logger.broken fails") == 1
    assert "ConnectionError: no route to host" in log
    assert sys.modules[callbacks].Broken.calls == 3  # then it is asked no more
    rows = Path("outputs/pretrain/default/metrics.csv").read_text().splitlines()
    done = main(*tiny, broken, "+logger.broken.begins=false", "name=b", "callbacks.online=null",
                "monitor=null")  # fmt: skip
    assert done.code == 0, done.err
    log = Path("outputs/pretrain/b/train.log").read_text()
    assert "logger.broken cannot begin and is left out (ConnectionError: no route" in log
    assert sys.modules[callbacks].Broken.calls == 3
    assert len(Path("outputs/pretrain/b/metrics.csv").read_text().splitlines()) == len(rows)
    done = main(*tiny, "logger=wandb", "name=c")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "pip install wandb" in done.err
