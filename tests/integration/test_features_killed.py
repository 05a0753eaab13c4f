"""An extraction that is killed leaves no store, and the same command goes on with it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vclr_lightning.evaluation.store import FeatureStore


def test_killed_and_continued(fork: Callable[..., Any], video_folder: Path, tmp_path: Path) -> None:
    arguments = [
        "stage=features",
        "name=killed",
        "ckpt=none",
        "backbone=resnet18",
        "image_size=224",
        f"data.root={video_folder}",
        f"data.cache_dir={tmp_path / 'index'}",
        "data.num_workers=0",
        "data.eval_batch_size=1",
        "data.holdout=0.34",
        "features.num_frames=4",
        "features.cache_dir=cache",
        "stage.run.splits=train",
        "trainer=cpu",
        "trainer.threads=1",
    ]
    cache = tmp_path / "run" / "cache" / "features"

    def lines() -> int:
        return sum(file.read_bytes().count(b"\n") for file in cache.glob(".*.part/*.jsonl"))

    run = fork(arguments, tmp_path / "run")
    while lines() < 2:
        time.sleep(0.005)
    run.send(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    kept = lines()
    assert 2 <= kept < 12
    assert [entry for entry in cache.iterdir() if entry.name[0] != "." and entry.is_dir()] == []

    again = fork(arguments, tmp_path / "run")
    assert again.wait() == 0, again.output()
    whole = fork(arguments, tmp_path / "whole")
    assert whole.wait() == 0, whole.output()
    stores = []
    for folder in ("run", "whole"):
        about = tmp_path / folder / "outputs/features/killed/features.json"
        stores.append(FeatureStore.open(json.loads(about.read_text())["train"]["folder"]))
    for name in ("features.npy", "rows.arrow"):
        assert len({(store.folder / name).read_bytes() for store in stores}) == 1
    assert list(cache.glob(".*.part")) == []
