"""The published recipes of the methods on clips, as configured: networks, views, optimizers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig

from vclr_lightning.data.transforms import Blur, Compose, Gray, Jitter, PairTransform, Solarize

METHODS = ("clip_nce", "cvrl", "pace", "vthcl")


@cache
def composed(method: str, *overrides: str) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=[f"objective={method}", *overrides])


def built(node: Any) -> Any:
    return instantiate(node, _convert_="all")


def step(transform: Any, kind: type[Any]) -> Any:
    (found,) = (one for one in transform.steps if isinstance(one, kind))
    return found


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("clip_nce", (32, 1, 128, 64, 300)),
        ("cvrl", (16, 2, 224, 1024, 200)),
        ("pace", (16, 1, 112, 30, 180)),
        ("vthcl", (8, 8, 224, 256, 200)),
    ],
)
def test_sizes(method: str, values: tuple[int, ...]) -> None:
    cfg = composed(method)
    keys = ("frames_per_clip", "frame_stride", "image_size", "batch_size", "epochs")
    assert tuple(cfg[key] for key in keys) == values
    (sampler,) = built(cfg.objective.samplers).values()
    assert (sampler.frames_per_clip, sampler.stride) == values[:2]
    assert sampler.min_frames == (18 if method == "clip_nce" else 1)


@pytest.mark.parametrize(
    ("method", "kind", "lr", "decay", "rates"),
    [
        ("clip_nce", "Adam", 1e-3, 1e-5, {0: 1e-3, 249: 1e-3, 250: 1e-4, 280: 1e-5}),
        ("cvrl", "SGD", 0.32, 1e-6, {0: 0.0, 5: 0.3195, 100: 0.16}),
        ("pace", "SGD", 1e-3, 5e-3, {59: 1e-3, 60: 1e-4, 120: 1e-5}),
        ("vthcl", "SGD", 0.03, 1e-4, {119: 0.03, 120: 0.003, 160: 0.0003}),
    ],
)
def test_optimizers_and_schedules(
    method: str, kind: str, lr: float, decay: float, rates: dict[int, float]
) -> None:
    cfg = composed(method)
    optimizer = built(cfg.optim.optimizer)([torch.zeros(1, requires_grad=True)])
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["weight_decay"] == decay
    if kind == "SGD":
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, False)
    schedule = built(cfg.optim.scheduler)(optimizer, steps_per_epoch=10, epochs=cfg.epochs)
    for epoch, rate in rates.items():
        assert schedule.rate(10 * epoch, lr) == pytest.approx(rate, rel=1e-3), epoch


def _trained(module: Any) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("clip_nce", 9_090_848),  # S3D and a head
        ("cvrl", 31_672_128 + 12_863_616),
        ("pace", 14_367_355),
        ("vthcl", 31_634_496 + 514_152 + 128 * (64 + 512 + 128 + 1024 + 256 + 2048 + 6)),
    ],
)
def test_networks_and_heads_have_the_published_sizes(method: str, trained: int) -> None:
    module = built(composed(method).stage.run.module)
    assert _trained(module) == trained
    assert (
        set(module.encoders)
        == {
            "clip_nce": {"query", "key"},
            "cvrl": {"query"},
            "pace": {"query"},
            "vthcl": {"query", "fast"},
        }[method]
    )
    means = {"cvrl": (0.0, 0.0, 0.0), "pace": (0.0, 0.0, 0.0)}
    assert module.pixels.mean == means.get(method, (0.485, 0.456, 0.406))
    if method == "cvrl":
        assert module.pixels.std == (1, 1, 1)
        assert composed(method).trainer.sync_batchnorm
        assert composed(method).optim.groups.no_decay.weight_decay == 0
    if method == "pace":
        assert module.pixels.std == pytest.approx((1 / 255,) * 3)


def test_pace_prediction_with_its_largest_network() -> None:
    module = built(composed("pace", "backbone=s3dg").stage.run.module)
    assert _trained(module) == 9_129_172


def test_views_of_clip_nce() -> None:
    transforms = built(composed("clip_nce").objective.transforms)
    query, key = transforms["query"], transforms["key"]
    assert query == key
    assert isinstance(query, PairTransform)
    assert (query.one_clip_p, query.strong_p, query.size) == (0.5, 0.3, 128)
    strong, weak = query.strong, query.weak
    assert isinstance(strong, Compose)
    assert isinstance(weak, Compose)
    assert [type(one).__name__ for one in strong.steps] == [
        *("Resize", "Jitter", "Gray", "Blur", "Flip")
    ]
    assert [type(one).__name__ for one in weak.steps] == ["Resize", "Flip"]
    crop: Any = strong.steps[0]
    assert (crop.interpolation, crop.crop.scale, crop.crop.tries) == ("bicubic", (0.2, 1.0), 1)
    assert crop.crop.fallback == "whole"
    assert step(strong, Jitter) == Jitter(
        brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8
    )
    assert step(strong, Gray) == Gray(p=0.2, kind="channel", per_frame=False)
    assert step(strong, Blur) == Blur(p=0.5, sigma=(0.1, 2.0))
    assert composed("clip_nce").objective.share == {"query": "pair", "key": "pair"}
    nce = built(composed("clip_nce").objective.objectives)["nce"](num_features=8)
    assert (nce.temperature, nce.queue.size, nce.own_mask) == (0.07, 2048, "none")


def test_views_of_cvrl() -> None:
    transforms = built(composed("cvrl").objective.transforms)
    first, second = transforms["clip1"], transforms["clip2"]
    for transform in (first, second):
        jitter = step(transform, Jitter)
        assert (jitter.brightness, jitter.hue, jitter.center) == (0.8, 0.2, "channels")
        assert transform.steps[0].crop.scale == (0.3, 1.0)
        assert transform.steps[0].crop.ratio == (0.5, 2.0)
    assert step(first, Blur) == Blur(p=1.0, sigma=(0.1, 2.0), radius=11)
    assert step(second, Blur) == Blur(p=0.1, sigma=(0.1, 2.0), radius=11)
    assert step(second, Solarize) == Solarize(p=0.2, threshold=128)
    assert not any(isinstance(one, Solarize) for one in first.steps)


def test_views_of_pace() -> None:
    transform = built(composed("pace").objective.transforms)["clip"]
    jitter = step(transform, Jitter)
    assert jitter == Jitter(
        **dict.fromkeys(("brightness", "contrast", "saturation"), 0.8),
        hue=0.2,
        p=0.8,
        per_frame=True,
        blue_first=True,
    )
    frames = [np.full((240, 320, 3), 9, np.uint8)] * 3
    stretched = transform.steps[0](frames, np.random.default_rng(0))
    assert stretched[0].shape == (128, 171, 3)
    assert transform(frames, np.random.default_rng(0)).shape == (3, 3, 112, 112)
