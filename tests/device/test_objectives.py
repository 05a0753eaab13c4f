"""Every objective on two devices that are not there: loss, gradients, optimizer step, queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

OBJECTIVES = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf/objective").glob("*.yaml")
)
FRAMES = ("backbone=tiny", "backbone.width=4", "backbone.stages=1")
CLIPS = ("backbone=slow_r50", "backbone.depth=18", "backbone.width=4", "frames_per_clip=4")
FAST = ("objective.encoders.fast.depth=18", "objective.encoders.fast.width=4")
DENSE = (*CLIPS, "frames_per_clip=3", "frame_stride=1", "objective.samplers.blocks.blocks=4")
SIGNED = "layer4.1.relu:input"  # of this network
SPECIFIC: dict[str, tuple[str, ...]] = {
    "clip_nce": CLIPS,
    "cvrl": CLIPS,
    "dpc": (
        *DENSE,
        f"objective.objectives.dpc.of=blocks@{SIGNED}",
        "objective.objectives.dpc.predict=2",
        "objective.transforms.blocks.steps.crop.crop.size=40",
    ),
    "memdpc": (
        *DENSE,
        f"objective.objectives.memdpc.of=blocks@{SIGNED}",
        "objective.objectives.memdpc.predict=1",
        "objective.objectives.memdpc.slots=8",
    ),
    "opn": (
        *(*FRAMES, "objective.samplers.blocks.gap=2"),
        "objective.transforms.blocks.steps.region.crop.size=40",
        "objective.transforms.blocks.steps.crop.crop.size=80",
    ),
    "pace": (*CLIPS, "objective.transforms.clip.steps.stretch.size=[36,48]"),
    "speednet": (*CLIPS, "frames_per_clip=6"),
    "st_puzzle": (*CLIPS, "objective.samplers.blocks.gap=1"),
    "vcop": (*CLIPS, "objective.samplers.blocks.gap=1"),
    "vthcl": (
        *(*CLIPS, *FAST, "frames_per_clip=2", "objective.objectives.vthcl.negatives=9"),
        "objective.objectives.vthcl.stages={layer2: [8, 8], layer3: [16, 16], layer4: [32, 32]}",
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_does_not_wait(
    name: str, pretraining: Callable[..., dict[str, Any]], train: Callable[..., None], ranks: Any
) -> None:
    """Nor does it send a tensor that NCCL refuses."""
    run = pretraining(
        f"objective={name}",
        *SPECIFIC.get(name, FRAMES),
        *("optim.scheduler=null", "data.eval_batch_size=3"),
    )
    data, module = run["data"], run["module"]
    ids = torch.tensor([data.train.video_id(row) for row in range(len(data.train))])
    for objective in module.objectives.values():
        objective.prepare(ids)
    train(module, data.seen_loader(range(6), module.required_views), data)
    for objective in module.objectives.values():
        for value in objective.diagnostics(1).values():
            assert value.is_cuda
    assert all(x.is_cuda for x in module.state_dict().values())
