"""The command in this process, and what W&B's offline files hold."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Main = Callable[..., SimpleNamespace]

TINY = [
    *("backbone=tiny", "backbone.width=4", "backbone.stages=1", "trainer=cpu", "image_size=32"),
    *("batch_size=4", "queue_size=16", "epochs=1", "data.num_workers=0", "data.holdout=0.34"),
    *("trainer.log_every_n_steps=1", "callbacks.online.every_n_epochs=1"),
]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(video_folder: Path) -> list[str]:
    return [*TINY, f"data.root={video_folder}"]


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

    from vclr_lightning import train

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
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    return run


@dataclass
class Session:
    """What one process wrote for a run."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # axis and summaries
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    preempting: bool = False
    exit_code: int | None = None

    def rows(self, name: str) -> dict[int, Any]:
        """The values of a metric by step."""
        return {row["_step"]: row[name] for row in self.history if name in row}


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a file of W&B: LevelDB's log format below a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # a record's header is never split between two blocks
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if left < 7 or kind == 0:
            at += left
            continue
        if at + 7 + length > len(data):
            return  # cut off
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


def _items(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        inner = found
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


def session(file: Path) -> Session:
    found = Session()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "metric":
            which = ("min", "max", "last", "mean")
            summaries = {one for one in which if getattr(record.metric.summary, one)}
            found.metrics[record.metric.name] = (record.metric.step_metric, summaries)
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "preempting":
            found.preempting = True
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


@pytest.fixture
def sessions() -> Callable[[Path], list[Session]]:
    """``sessions(folder)`` reads what each process wrote for the run in a folder, in order."""

    def read(folder: Path) -> list[Session]:
        files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
        for _ in range(100):  # W&B's own process may still be writing
            found = [session(file) for file in files]
            if found and found[-1].exit_code is not None:
                break
            time.sleep(0.1)
        return found

    return read
