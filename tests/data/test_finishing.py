"""A batch that workers begin and the device finishes, up to training with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.collate import as_tensors, collate
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.finishing import finish_batch
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import FinetuneTransform, PretrainTransform
from vclr_lightning.models.tiny import TinyBackbone
from vclr_lightning.modules import MomentumEncoder, PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame

# Lightning reads batches with a part of torch that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

Make = Callable[..., VideoDataModule]


@pytest.fixture
def make(
    manifest: Manifest,
    reader: VideoReader,
    transform: ClipTransform,
    eval_transform: ClipTransform,
) -> Make:
    def build(**changes: Any) -> VideoDataModule:
        given: dict[str, Any] = {
            "train": manifest,
            "val": manifest,
            "samplers": {"tuples": TupleSampler(frames_per_clip=2)},
            "transform": transform,
            "eval_transform": eval_transform,
            "reader": reader,
            "batch_size": 6,
            "num_workers": 0,
            "seed": 9,
        }
        return VideoDataModule(**{**given, **changes})

    return build


def _views(data: VideoDataModule) -> list[dict[str, Tensor]]:
    """The views of an epoch, as a module gets them."""
    loader = data.train_dataloader()
    cpu = torch.device("cpu")
    batches = [data.transfer_batch_to_device(batch, cpu, 0) for batch in loader]
    data.teardown("fit")
    assert all(
        {"video_id", "rows", "targets", "frame_indices", "label"} < set(batch) for batch in batches
    )
    assert not any({"begun", "augmentations"} & set(batch) for batch in batches)
    return [batch["views"] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_finished_on_the_device_are_the_workers(make: Make, workers: int) -> None:
    whole = _views(make(augment="torch"))
    finished = _views(make(augment="device", num_workers=workers))
    assert len(whole) == len(finished) == 3
    for one, other in zip(whole, finished, strict=True):
        assert one.keys() == other.keys() == {"anchor", "positive", "second"}
        for name in one:
            assert one[name].dtype == other[name].dtype == torch.uint8
            assert torch.equal(one[name], other[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_by_opencv_are_almost_the_same(make: Make, workers: int) -> None:
    whole = _views(make(augment="torch"))
    for one, other in zip(whole, _views(make(augment="opencv", num_workers=workers)), strict=True):
        for name in one:
            assert one[name].shape == other[name].shape
            off = (one[name].float() - other[name].float()).abs().mean(dim=(2, 3, 4, 5))
            assert off.max() <= 1.5


def test_an_unfinished_batch_has_no_views(make: Make) -> None:
    data = make(augment="device")
    batch = next(iter(data.train_dataloader()))
    assert "views" not in batch
    assert {name: tuple(clips.shape) for name, clips in batch["begun"].items()} == {
        "anchor": (6, 3, 2, 32, 32, 3),
        "positive": (6, 3, 2, 32, 32, 3),
        "second": (6, 1, 2, 32, 32, 3),
    }
    assert batch["augmentations"]["second"].shape[:2] == (6, 1)
    data.teardown("fit")


def test_evaluation_augments_in_the_worker(make: Make) -> None:
    one, other = (list(make(augment=augment).pair_loader()) for augment in ("torch", "device"))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a["views"]["anchor"], b["views"]["anchor"])
        assert torch.equal(a["views"]["positive"], b["views"]["positive"])


def test_shared_augmentation_is_shared_on_the_device(
    manifest: Manifest, reader: VideoReader
) -> None:
    transform = PretrainTransform(size=16)
    dataset = VideoDataset(
        manifest=manifest,
        reader=reader,
        samplers={"tuples": TupleSampler()},
        transform=transform,
        share=dict.fromkeys(("anchor", "positive", "second"), "video"),
        begin_only=True,
    )
    sample = dataset[0, 0]
    rows = np.concatenate(list(sample["augmentations"].values()))
    assert (rows == rows[0]).all()
    batch = finish_batch(as_tensors(collate([sample])), dataset.transforms.of, "cpu")
    assert batch["views"]["anchor"].shape == (1, 3, 3, 1, 16, 16)


def test_what_cannot_be_left_to_the_device_is_refused(
    make: Make, manifest: Manifest, reader: VideoReader
) -> None:
    with pytest.raises(UserError, match="'device' is not for FinetuneTransform"):
        make(augment="device", transform=FinetuneTransform(size=32, resize=32))
    with pytest.raises(UserError, match="augment='cuda' is unknown"):
        make(augment="cuda")
    finetuned = make(augment="device")
    with pytest.raises(UserError, match="which only torch computes, in the workers; take 'torch'"):
        finetuned.draw_with(
            samplers={"tuples": TupleSampler()}, transform=FinetuneTransform(size=32)
        )
    whole = FinetuneTransform(size=32)
    own = dict.fromkeys(("anchor", "positive", "second", "extra"), whole)
    with pytest.raises(UserError, match="not for the transforms of anchor, positive, second, w"):
        make(augment="device", transforms=own).train_dataloader()
    for options, message in (
        ({"transform": whole}, "is not for the transforms of anchor, positive, second, which only"),
        ({"transform": PretrainTransform(size=32), "replace": False}, "begin_only needs replace"),
    ):
        with pytest.raises(UserError, match=message):
            VideoDataset(
                manifest=manifest,
                reader=reader,
                samplers={"tuples": TupleSampler()},
                begin_only=True,
                **options,  # type: ignore[arg-type]
            )


def _trained(data: VideoDataModule, **trainer: Any) -> dict[str, Tensor]:
    pl.seed_everything(1, verbose=False)
    module = PretrainModule(
        backbone=TinyBackbone(width=8, stages=2),
        objectives={"inter": partial(InterFrame, queue_size=24), "intra": IntraFrame},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        encoders={"key": MomentumEncoder(batchnorm_groups=2)},
    )
    pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    ).fit(module, data)
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_training_by_each_of_the_ways(make: Make) -> None:
    one_frame = {"samplers": {"tuples": TupleSampler()}}
    torch_, opencv, device = (
        _trained(make(augment=augment, **one_frame), max_epochs=2)
        for augment in ("torch", "opencv", "device")
    )
    assert all(torch.equal(torch_[name], device[name]) for name in torch_)
    assert any(not torch.equal(torch_[name], opencv[name]) for name in torch_)
    assert all(torch.isfinite(value).all() for value in opencv.values())


@pytest.mark.filterwarnings("ignore:You have overridden .on_after_batch_transfer:UserWarning")
def test_a_modules_own_hook_still_runs(make: Make) -> None:
    class Watching(PretrainModule):
        seen: list[set[str]]

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            self.seen.append(set(batch))
            return batch

    module = Watching(
        backbone=TinyBackbone(width=8, stages=2),
        objectives={"inter": partial(InterFrame, queue_size=24)},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        encoders={"key": MomentumEncoder(batchnorm_groups=2)},
    )
    module.seen = []
    pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=1,
    ).fit(module, make(augment="device", samplers={"tuples": TupleSampler()}))
    assert module.seen
    assert all("views" in names and "begun" not in names for names in module.seen)
