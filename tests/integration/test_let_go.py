"""Runs of one process leave nothing behind: no handler, no thread, no worker, no object."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

from vclr_lightning import train
from vclr_lightning.core.queue import KeyQueue
from vclr_lightning.data.loading.loader import BatchLoader

KINDS = (Trainer, LightningModule, LightningDataModule, Callback, KeyQueue, BatchLoader)

HOOK = """
import os, signal
from pytorch_lightning import Callback

class Hook(Callback):
    def __init__(self, kind):
        self.kind = kind

    def on_train_end(self, trainer, module):
        if self.kind == "late" and not os.path.exists("sent"):
            open("sent", "w").close()
            os.kill(os.getpid(), signal.SIGTERM)

    def on_before_optimizer_step(self, trainer, *args):
        if self.kind == "late":
            return
        if self.kind == "fault":
            raise RuntimeError("a fault of the program")
        os.kill(os.getpid(), getattr(signal, self.kind))
"""

TINY = [
    *("backbone=tiny", "backbone.width=4", "backbone.stages=1", "image_size=32"),
    *("trainer=cpu", "epochs=1", "batch_size=4", "data.num_workers=1", "data.holdout=0.34"),
]
PRETRAIN = [*TINY, "queue_size=16", "objective=video", "callbacks.online.every_n_epochs=1"]
FINETUNE = [*TINY, "stage=finetune", "num_segments=2"]
LOCALIZE = [
    *("stage=localize", "trainer=cpu", "epochs=1", "batch_size=2", "positions=10"),
    *("model.hidden_1d=4", "model.hidden_2d=4", "model.hidden_3d=4", "model.samples=4"),
    *("snippets=files", "snippets.folder=csv", "annotations=annotations.json"),
]


def _hook(kind: str) -> list[str]:
    return ["+callbacks.hook._target_=hook.Hook", f"+callbacks.hook.kind={kind}"]


CASES: dict[str, tuple[list[str], int | str]] = {
    "pretrain": (PRETRAIN, 0),
    "finetune, tested": (FINETUNE, 0),
    "localize": (LOCALIZE, 0),
    "a fault": ([*PRETRAIN, *_hook("fault")], "RuntimeError"),
    "SIGTERM": ([*PRETRAIN, *_hook("SIGTERM")], 143),
    "Ctrl-C": ([*FINETUNE, *_hook("SIGINT")], 130),
    "a sweep": (["-m", *PRETRAIN, "seed=0,1,2"], 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs are, with features of a few untrimmed videos."""
    folder = tmp_path_factory.mktemp("let_go")
    (folder / "hook.py").write_text(HOOK)
    (folder / "csv").mkdir()
    database = {}
    for number in range(6):
        rows = np.random.default_rng(number).standard_normal((10, 4))
        np.savetxt(folder / f"csv/v_{number}.csv", rows, delimiter=",", header="x", comments="")
        database[str(number)] = {
            "duration": 10.0,
            "subset": "training" if number < 4 else "validation",
            "annotations": [{"segment": [2.0, 6.0], "label": "run"}],
        }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return folder


def _command(arguments: Sequence[str]) -> int | str:
    """Run the command in this process; returns its status, or an error's name."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *arguments]
    try:
        train.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    except Exception as error:
        return type(error).__name__
    finally:
        HydraConfig.instance().cfg = None
        sys.argv = before
    return 0


def _handlers() -> dict[signal.Signals, Any]:
    # Torch sets one for SIGCHLD when it first starts workers, for good.
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    return {signal.Signals(s): signal.getsignal(s) for s in signals if s < signal.SIGRTMIN}


def _reachable() -> Counter[str]:
    for _ in range(3):
        gc.collect()
    return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, KINDS))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_nothing_stays_behind(
    case: str, folder: Path, video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, code = CASES[case]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.syspath_prepend(str(folder))
    where = [] if "stage=localize" in arguments else [f"data.root={video_folder}"]
    handlers, objects = _handlers(), _reachable()
    assert _command([*arguments, *where, f"name={case.replace(', ', '_')}"]) == code
    assert _handlers() == handlers
    assert _reachable() == objects
    assert multiprocessing.active_children() == []
    others = {thread.name for thread in threading.enumerate()} - {"MainThread"}
    assert not {name for name in others if name.startswith(("worker-watch", "QueueFeeder"))}


def test_a_run_stopped_after_its_last_step_loses_no_result(
    folder: Path, video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.syspath_prepend(str(folder))
    arguments = [*FINETUNE, f"data.root={video_folder}"]
    stopped = [*arguments, *_hook("late"), "name=stopped"]
    assert [_command(stopped), _command(stopped)] == [143, 0]
    assert _command([*arguments, "name=whole"]) == 0
    results = []
    for name in ("stopped", "whole"):
        values = json.loads((folder / f"outputs/finetune/{name}/result.json").read_text())
        results.append({key: value for key, value in values.items() if key[:5] != "perf/"})
    assert results[0] == results[1]
    assert {"train/loss", "val/top1", "top1", "best"} <= results[0].keys()


def test_a_process_that_has_trained_ends_by_sigterm(
    folder: Path, video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            _command([*PRETRAIN, f"data.root={video_folder}", "name=lives"])
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
