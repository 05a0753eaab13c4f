"""Profiler traces by option: the files are there, and load."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train

TINY = [
    "backbone=tiny",
    "backbone.width=4",
    "backbone.stages=1",
    "trainer=cpu",
    "image_size=32",
    "batch_size=2",
    "queue_size=16",
    "epochs=1",
    "trainer.limit_train_batches=7",
    "data.num_workers=0",
    "callbacks.online=null",
    "callbacks.checkpoint=null",
    "name=profiled",
]


@pytest.fixture
def profile(
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    indexed: Callable[[Path], str],
) -> Path:
    """The folder of a run's profile, which does not exist yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    return tmp_path / "outputs/pretrain/profiled/profile"


def _train(video_folder: Path, *more: str) -> None:
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *TINY, f"data.root={video_folder}", *more]
    try:
        train.main()
    finally:
        sys.argv = before
        HydraConfig.instance().cfg = None


def test_pytorch_writes_one_trace_of_three_steps(profile: Path, video_folder: Path) -> None:
    _train(video_folder, "+profiler=pytorch")
    (trace,) = profile.glob("*.pt.trace.json")
    events = json.loads(trace.read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum("aten::conv2d" in name for name in names) > 3
    steps = {name for name in names if name.startswith("ProfilerStep")}
    assert len(steps) == 3
    assert "aten::" in (profile / "fit-operations.txt").read_text()


@pytest.mark.parametrize(("name", "file"), [("simple", "times"), ("advanced", "calls")])
def test_tables_name_the_training_step(
    profile: Path, video_folder: Path, name: str, file: str
) -> None:
    _train(video_folder, f"+profiler={name}")
    (table,) = profile.iterdir()
    assert table.name == f"fit-{file}.txt"
    assert "training_step" in table.read_text()
