"""Finetuning and localisation on two ranks: one result, stopped and continued alike."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Ranks = Callable[[list[str], Path], list[Any]]


@pytest.fixture(scope="module")
def classify(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """3 epochs of 3 steps, of 4 of 12 videos; 6 videos to test on."""
    return [
        *("stage=finetune", "name=ranks", f"data.root={video_folder}", "data.holdout=0.34"),
        f"data.cache_dir={tmp_path_factory.mktemp('index')}",
        *("data.num_workers=0", "backbone=tiny", "backbone.width=4", "backbone.stages=1"),
        *("trainer=cpu", "trainer.log_every_n_steps=1", "image_size=32", "batch_size=4"),
        *("epochs=3", "num_segments=2", "callbacks.checkpoint.every_n_steps=1"),
    ]


@pytest.fixture(scope="module")
def localize(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """3 epochs of 2 steps, of 4 of 8 videos; 3 videos to make proposals for."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    database = {}
    for number in range(11):
        np.save(folder / f"{number:02}.npy", rng.standard_normal((12, 8)).astype(np.float32))
        database[f"{number:02}"] = {
            "duration": 12.0,
            "subset": "training" if number < 8 else "validation",
            "annotations": [{"segment": [2 + number / 3, 6 + number / 2], "label": "run"}],
        }
    (folder / "spans.json").write_text(json.dumps({"database": database}))
    return [
        *("stage=localize", "name=ranks", "snippets=files", f"snippets.folder={folder}"),
        *(f"annotations={folder}/spans.json", "positions=12", "model.hidden_1d=8"),
        *("model.hidden_2d=8", "model.hidden_3d=8", "model.samples=4", "batch_size=4", "epochs=3"),
        *("trainer=cpu", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=1"),
    ]


@pytest.mark.parametrize("stage", ["finetune", "localize"])
def test_two_ranks_give_one_result_and_continue_exactly(
    stage: str,
    classify: list[str],
    localize: list[str],
    fork_ranks: Ranks,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    arguments = classify if stage == "finetune" else localize
    run = Path(f"outputs/{stage}/ranks")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    ranks = fork_ranks(arguments, whole)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()

    ranks = fork_ranks(arguments, stopped)
    assert wait_for_rows(ranks[0], stopped / run / "metrics.csv", 1)
    ranks[1].send(signal.SIGTERM)  # to one of them
    assert [rank.wait() for rank in ranks] == [143, 0]
    ranks = fork_ranks(arguments, stopped)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output()

    a, b = (torch.load(f / run / "last.ckpt", weights_only=True) for f in (whole, stopped))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())
    file = {"finetune": "predictions.csv", "localize": "proposals.json"}[stage]
    assert (whole / run / file).read_text() == (stopped / run / file).read_text()
    if stage == "finetune":
        with (whole / run / file).open(newline="") as sink:
            paths = [row["path"] for row in csv.DictReader(sink)]
        assert len(paths) == len(set(paths)) == 6
    else:
        assert set(json.loads((whole / run / file).read_text())["results"]) == {"08", "09", "10"}
    assert ranks[1].output().count("wrote") == 0
