"""Every method by the command line: trained, stopped and continued to the last bit, evaluated."""

from __future__ import annotations

import csv
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Fork = Callable[[list[str], Path], Any]

RUN = Path("outputs/pretrain/tried")
FRAMES = ["backbone=tiny", "backbone.width=8", "backbone.stages=2", "optim.base_lr=0.5"]
CLIPS = ["backbone=slow_r50", "backbone.depth=18", "backbone.width=4"]
FAST = [f"objective.encoders.fast.{word.partition('.')[2]}" for word in CLIPS[1:]]
STAGES = "{layer2: [8, 8], layer3: [16, 16], layer4: [32, 32]}"
METHODS: dict[str, list[str]] = {  # what a tiny run needs beside `objective=NAME`
    "moco": FRAMES,
    "seco": FRAMES,
    "vince": [*FRAMES, "optim.scheduler.warmup_steps=2", "optim.scheduler.milestones=[1]"],
    "clip_nce": [*CLIPS, "frames_per_clip=4"],
    "cvrl": [*CLIPS, "frames_per_clip=4", "optim.scheduler.warmup_epochs=1"],
    "pace": [*CLIPS, "frames_per_clip=4", "objective.transforms.clip.steps.stretch.size=[36,48]"],
    "vthcl": [
        *(*CLIPS, *FAST, "frames_per_clip=2"),
        "objective.objectives.vthcl.negatives=9",
        f"objective.objectives.vthcl.stages={STAGES}",
    ],
}


@pytest.fixture(scope="module")
def tiny(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six steps of 4 of 12 videos, 6 held out."""
    return [
        "name=tried",
        "image_size=32",
        "trainer=cpu",
        "trainer.threads=1",
        "trainer.log_every_n_steps=1",
        f"data.root={video_folder}",
        f"data.cache_dir={tmp_path_factory.mktemp('index')}",
        "data.holdout=0.34",
        "data.num_workers=1",
        "batch_size=4",
        "queue_size=50",
        "epochs=2",
        "callbacks.online.every_n_epochs=2",
        "callbacks.checkpoint.every_n_steps=1",
    ]


def rows_of(folder: Path) -> list[dict[str, str]]:
    """What was logged, without the times."""
    with (folder / RUN / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def tensors_of(node: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(node, torch.Tensor):
        return {prefix: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    nested = (dict, list, tuple, torch.Tensor)
    return {
        name: tensor
        for key, value in items
        if isinstance(value, nested)
        for name, tensor in tensors_of(value, f"{prefix}.{key}").items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_continues_exactly_and_is_evaluated(
    method: str,
    tiny: list[str],
    fork: Fork,
    wait_for_rows: Callable[..., bool],
    tmp_path: Path,
) -> None:
    arguments = [f"objective={method}", *METHODS[method], *tiny]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = fork(arguments, whole)
    assert process.wait() == 0, process.output()

    process = fork(arguments, parts)
    if wait_for_rows(process, parts / RUN / "metrics.csv", 2):
        process.send(signal.SIGTERM)
    assert process.wait() in (143, 0), process.output()
    process = fork(arguments, parts)
    assert process.wait() == 0, process.output()

    assert rows_of(parts) == rows_of(whole)
    losses = [float(row["train/loss"]) for row in rows_of(whole) if row.get("train/loss")]
    assert len(losses) == 6
    assert len(set(losses)) == 6
    assert all(map(math.isfinite, losses))
    states = [
        tensors_of(torch.load(folder / RUN / "last.ckpt", weights_only=True))
        for folder in (whole, parts)
    ]
    assert states[0].keys() == states[1].keys()
    assert any("optimizer" in name for name in states[0])
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name

    data = [a for a in tiny if a.startswith(("data.", "trainer.threads", "image_size"))]
    probe = ["stage=linear_probe", "probe=knn", f"ckpt={whole / RUN}/last.ckpt", "trainer=cpu"]
    process = fork([*probe, *data, "features.num_frames=2", "run_dir=probed"], whole)
    assert process.wait() == 0, process.output()
    found = json.loads((whole / "probed" / "result.json").read_text())
    assert 0 <= found["top1"] <= 1, found
