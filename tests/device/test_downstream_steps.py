"""Finetuning, localisation, feature extraction and Grad-CAM on a device that is not there."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from vclr_lightning.data.loading.finishing import finish_batch
from vclr_lightning.data.transforms import PretrainTransform
from vclr_lightning.data.transforms.batched import FLIP, GRAY, STEP, STEPS, TAPS
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.evaluation.features import encode_batch
from vclr_lightning.models import SlowFastPathway, TinyBackbone, bmn
from vclr_lightning.modules import FinetuneModule
from vclr_lightning.modules.localization import LocalizationModule
from vclr_lightning.objectives.heads import projection_head
from vclr_lightning.stages.gradcam.heat_maps import heat_map
from vclr_lightning.stages.gradcam.networks import Network
from vclr_lightning.stages.gradcam.targets import (
    ClassScores,
    OrderPrediction,
    Target,
    TupleSimilarity,
)

Train = Callable[..., None]

tiny = partial(TinyBackbone, width=8, stages=1)
slow = partial(SlowFastPathway, depth=18, width=4)


def pictures(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def finetuned(backbone: nn.Module, **options: Any) -> FinetuneModule:
    return FinetuneModule(
        backbone=backbone,
        num_classes=3,
        optimizer=partial(SGD, lr=0.1, momentum=0.9, foreach=True),
        **options,
    )


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("tsn", {"frozen": True, "batchnorm": True, "batch_flip_p": 0.5}),
        ("tsm", {"channels_last": True}),
        ("gru", {}),
    ],
)
def test_finetuning_does_not_wait(head: str, options: dict[str, Any], train: Train) -> None:
    clips = (3, 8) if head == "gru" else (3, 1)
    batches = [
        {
            "views": {"segments": pictures(2, clips[0], 3, clips[1], 32, 32)},
            "label": torch.tensor([0, 2]),
        }
        for _ in range(2)
    ]
    backbone = slow() if head == "gru" else tiny()
    train(finetuned(backbone, head=head, **options), batches)


def test_localisation_does_not_wait(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(shares: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Stands for the product with a sparse matrix, of which there are no fake ones."""
        assert rows.is_cuda
        assert columns.is_cuda
        return shares.sum(dim=1, keepdim=True).expand(-1, len(model.matching.start), -1)

    monkeypatch.setattr(bmn._Sample, "apply", sample)
    monkeypatch.setattr(bmn.MatchingConv, "_csr", lambda x, name, _: getattr(x, f"{name}_value"))
    # A copy, whose buffers are no views of sparse matrices.
    model = deepcopy(bmn.BMN(num_features=8, positions=10, hidden_1d=8, hidden_2d=4, hidden_3d=8))
    batches = [
        {
            "features": torch.rand(2, 8, 10),
            "iou": torch.rand(2, 10, 10),
            "start": torch.rand(2, 10),
            "end": torch.rand(2, 10),
        }
        for _ in range(2)
    ]
    train(LocalizationModule(model, optimizer=partial(Adam, lr=1e-3, fused=True)), batches)


@pytest.mark.parametrize("layer", [None, "blocks.0"])
def test_features_are_computed_on_the_device(layer: str | None, cuda: Any) -> None:
    cuda.strict = False  # each batch of features is read
    batch: Any = {
        "frames": pictures(2, 3, 3, 1, 32, 32),
        "mask": torch.tensor([[True, True, True], [True, False, False]]),
    }
    encode = frame_encoder(tiny().to("cuda"), layer=layer)
    found = encode_batch({"": encode}, batch, device="cuda", chunk=2)[""]
    assert [len(video) for video in found] == [3, 1]
    assert all(video.is_cuda for video in found)


def target_of(kind: str) -> Target:
    if kind == "class":
        return ClassScores(finetuned(tiny(), head="tsm").to("cuda"))
    network = tiny().to("cuda")
    if kind == "similarity":
        return TupleSimilarity(network)
    head, classifier = projection_head(16, 4).to("cuda"), nn.Linear(2 * 3 * 4, 4).to("cuda")
    return OrderPrediction(network, head=head, classifier=classifier, normalize="frames")


@pytest.mark.parametrize("kind", ["class", "similarity", "order"])
def test_grad_cam_runs_on_the_device(kind: str, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.strict = False  # the winner, and every heat map, are read
    monkeypatch.setattr(  # backward needs a driver
        torch.autograd, "grad", lambda score, leaves, **_: [torch.zeros_like(x) for x in leaves]
    )
    target = target_of(kind).eval()
    network = Network("a", "a.ckpt", target, "blocks.0", target.network.get_submodule("blocks.0"))
    found = heat_map(
        network,
        SimpleNamespace(label=0),  # type: ignore[arg-type]
        pictures(2, 3, 3, 1, 32, 32),
        order=torch.arange(3).expand(target.tuples, 3),
        explain=0 if kind == "order" else None,
        shuffled="neither",
        size=16,
        device=torch.device("cuda"),
    )
    assert found.heat.shape == (2, target.tuples, 3, 16, 16)
    assert not found.heat.is_cuda


def test_augmentation_is_finished_on_the_device(cuda: Any) -> None:
    transform = PretrainTransform(size=16)
    frames = [np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)]
    drawn = [transform.begin(frames, np.random.default_rng(seed)) for seed in range(40)]
    begun = torch.stack([crops for crops, _ in drawn])
    rows = torch.from_numpy(np.stack([row for _, row in drawn]))
    used = [FLIP, GRAY, *range(STEPS, TAPS, STEP), TAPS]
    assert (rows[:, used] != 0).any(dim=0).all()  # everything happens to some clip
    batch = {
        "begun": {"clip": cuda.pin(begun.unflatten(0, (20, 2)))},
        "augmentations": {"clip": cuda.pin(rows.unflatten(0, (20, 2)))},
        "video_id": cuda.pin(torch.arange(3)),
        "host_ids": [0, 1, 2],
    }
    finished = finish_batch(batch, {"clip": transform}, torch.device("cuda"))
    assert finished["views"]["clip"].shape == (20, 2, 3, 1, 16, 16)
    assert finished["views"]["clip"].is_cuda
    assert finished["video_id"].is_cuda
    assert finished["host_ids"] == [0, 1, 2]
