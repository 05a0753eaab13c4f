"""Measuring your own parts from Python, without a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from torch.optim import SGD

from vclr_lightning.bench import Parts, bench
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame
from vclr_lightning.stages.shared.trainer import build_trainer


def _build(values: Mapping[str, Any], *, videos: Path, cache: Path, **trainer: Any) -> Parts:
    module = PretrainModule(
        backbone=TinyBackbone(width=4, stages=1),
        objectives={"inter": partial(InterFrame, queue_size=16)},
        optimizer=partial(SGD, lr=0.1),
    )
    data = VideoDataModule(
        train=ensure_manifest(videos, cache_dir=cache, workers=1, show=False),
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=36),
        reader=PyAVReader(),
        batch_size=10,
        num_workers=values["data.num_workers"],
        augment=values.get("data.augment"),
    )
    return Parts(module, data, partial(build_trainer, accelerator="cpu", **trainer))


def test_a_large_batch_is_measured_on_a_small_one(video_folder: Path, tmp_path: Path) -> None:
    build = partial(_build, videos=video_folder, cache=tmp_path, max_epochs=100)
    found = bench(build, seconds=0.001, num_workers=0, variants=False, show=False)
    assert (found.step.videos, found.batch) == (8, 10)
    assert found.run is None
    assert "give --seconds" in found.run_reason
    text = "".join(str(cell) for table in found.tables() for c in table.columns for cell in c.cells)
    assert "of a batch of 10, which would have taken too long" in text
    assert "no: would take" in text


def test_a_trainer_that_ends_early_is_an_error(video_folder: Path, tmp_path: Path) -> None:
    build = partial(
        _build, videos=video_folder, cache=tmp_path, max_epochs=1, limit_train_batches=2
    )
    with pytest.raises(UserError, match="ends after too few batches to measure"):
        bench(build, seconds=1, num_workers=0, variants=False, show=False)


def test_a_run_with_few_batches_is_not_measured_together(
    video_folder: Path, tmp_path: Path
) -> None:
    built: list[Trainer] = []

    def trainer(**options: Any) -> Trainer:
        built.append(build_trainer(accelerator="cpu", max_epochs=1, **options))
        return built[-1]

    def build(values: Mapping[str, Any]) -> Parts:
        parts = _build(values, videos=video_folder, cache=tmp_path, max_epochs=1)
        return Parts(parts.module, parts.data, trainer)

    found = bench(build, seconds=3, num_workers=0, variants=False, show=False)
    assert found.run is None
    assert found.run_reason == "the run has too few batches"
    assert len(built) >= 3
