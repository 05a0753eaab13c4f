"""What is offered is accepted by trainers of the package of Lightning that is chosen."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import pytest
import torch
from foreign_modules import Classifier, make_loader, make_trainer

from vclr_lightning.callbacks import AtomicCheckpointIO, ResumableCheckpoint, RunProgress
from vclr_lightning.core import lightning
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.loggers.csv import CSVLogger
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame


def test_the_chosen_package() -> None:
    names = {"lightning": "lightning.pytorch.", "pytorch_lightning": "pytorch_lightning."}
    for cls in (lightning.Trainer, lightning.LightningModule, lightning.Callback):
        assert cls.__module__.startswith(names[lightning.PACKAGE])


def test_each_is_recognised_as_what_it_is(tmp_path: Path) -> None:
    saving, bar, io = ResumableCheckpoint(directory=tmp_path), RunProgress(), AtomicCheckpointIO()
    shown = {"enable_checkpointing": True, "enable_progress_bar": True}
    trainer = make_trainer(saving, bar, plugins=[io], **shown)
    assert trainer.checkpoint_callbacks == [saving]  # none of Lightning's own beside it
    assert trainer.progress_bar_callback is bar
    assert trainer.strategy.checkpoint_io is io
    trainer.fit(Classifier(), make_loader("plain", "classifier"))
    assert torch.load(saving.last_path, weights_only=True)["global_step"] == 10


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_own_module_data_and_logger(video_folder: Path, tmp_path: Path) -> None:
    train, val = ensure_manifest(video_folder, cache_dir=tmp_path).hold_out(0.3, seed=0)
    data = VideoDataModule(
        train=train,
        val=val,
        samplers={"tuples": TupleSampler(num_segments=2)},
        transform=PretrainTransform(size=16),
        eval_transform=EvalTransform(size=16, resize=16),
        reader=PyAVReader(),
        batch_size=4,
        num_workers=0,
    )
    module = PretrainModule(
        backbone=TinyBackbone(width=4),
        objectives={"inter": partial(InterFrame, queue_size=8)},
        optimizer=partial(torch.optim.SGD, lr=0.01),
    )
    trainer = make_trainer(
        logger=CSVLogger(directory=tmp_path), max_epochs=1, use_distributed_sampler=False
    )
    trainer.fit(module, data)
    with (tmp_path / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 3
