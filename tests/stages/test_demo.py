"""The demo, on real video files: everything it promises is there, and true."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from vclr_lightning.core.schedules import WarmupCosine
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.evaluation import FrozenTable, extract_features, retrieval
from vclr_lightning.loggers.csv import CSVLogger
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame, TemporalOrder, VideoLevel
from vclr_lightning.stages.demo.stage import demo
from vclr_lightning.stages.shared.data import video_data
from vclr_lightning.stages.shared.trainer import build_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers.*"
)


def build(folder: Path, cache: Path) -> tuple[PretrainModule, Any]:
    data = video_data(
        root=folder,
        cache_dir=cache,
        holdout=0.34,
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=36),
        batch_size=4,
        num_workers=0,
        eval_frames=6,
    )
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "queue_size": 16}
    module = PretrainModule(
        backbone=TinyBackbone(width=8, stages=2),
        objectives={
            "inter": partial(InterFrame, **sizes),
            "video": partial(VideoLevel, **sizes),
            "order": partial(TemporalOrder, embedding_dim=8),
        },
        optimizer=partial(torch.optim.SGD, lr=0.01),
        scheduler=partial(WarmupCosine, warmup_epochs=0),
    )
    return module, data


def test_demo(video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, data = build(video_folder, tmp_path / "cache")
    run = tmp_path / "run"
    values = demo(
        module=module,
        data=data,
        directory=run,
        untrained=[TinyBackbone(width=8, stages=2) for _ in range(2)],
        trivial=True,
        trainer=partial(build_trainer, max_epochs=1, accelerator="cpu", log_every_n_steps=1),
        callbacks={},
        loggers={"csv": CSVLogger(directory=run)},
    )
    results = json.loads((run / "results.json").read_text())
    table = FrozenTable.from_dict(results["frozen"])
    names = ["VCLR", "untrained", "mean colour", "mean frame", "mean motion map", "chance"]
    assert [row.name for row in table.rows] == names
    assert (table.train_videos, table.test_videos) == (len(data.train), len(data.val))
    assert len(table.row("untrained").values["r1"]) == 2

    groups = len(set(data.val.group_ids.tolist()))
    assert table.groups == groups
    for measure, (low, high) in table.row("VCLR").intervals.items():
        assert low <= table.row("VCLR").values[measure][0] <= high
    for measure, (ahead, low, high) in table.row("untrained").ahead.items():
        random = sum(table.row("untrained").values[measure]) / 2
        assert ahead == pytest.approx(table.row("VCLR").values[measure][0] - random)
        assert low <= ahead <= high

    known, unseen = (
        extract_features(module.encode, data.frames_loader(split), show=False)
        for split in ("train", "val")
    )
    direct = retrieval(known, unseen, ordered=True)["r1"]
    assert values["r1_ordered"] == table.row("VCLR").values["r1_ordered"][0] == direct
    assert set(results["held_out"]["instance_r1"]) == {"VCLR", "untrained"}
    assert 0 <= results["held_out"]["order_accuracy"] <= 1

    page = (run / "report.html").read_text(encoding="utf-8")
    assert "ahead of untrained" in page
    assert f"{len(data.val)} test videos of" in page
    assert f"from {len(data.train)} videos without labels" in page
    for title in ("What the features find", "Training", "What the network saw"):
        assert f"<h2>{title}</h2>" in page
    queries, tuples = (page[page.index(f'<div class="{name}">') :] for name in ("strips", "cards"))
    assert queries.count('<div class="group">') == 3 + 4
    assert tuples.count('<div class="group">') == 4
    assert len(re.findall('class="(?:right|wrong)"', queries)) == 3 * 2 * 5
    assert "mean motion map" in capsys.readouterr().out
