"""Backbones: the contract, and torchvision's own networks as the reference."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as tv
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    Backbone,
    TinyBackbone,
    TorchvisionResNet,
    TorchvisionVideo,
    WrappedBackbone,
)
from vclr_lightning.models.recognise import build_backbone
from vclr_lightning.models.torchvision import RESNETS


@pytest.mark.parametrize(
    ("backbone", "shape", "features"),
    [
        (TorchvisionResNet(name="resnet18"), (2, 3, 64, 64), 512),
        (TorchvisionResNet(name="resnet50", zero_init_residual=True), (2, 3, 64, 64), 2048),
        (TorchvisionResNet(name="resnet18", small_stem=True), (2, 3, 32, 32), 512),
        (TorchvisionVideo(name="r3d_18"), (2, 3, 4, 32, 32), 512),
        (TorchvisionVideo(name="s3d"), (2, 3, 16, 64, 64), 1024),
        (TinyBackbone(width=8), (2, 3, 40, 64), 64),
        (TinyBackbone(width=12, stages=2, norm="group"), (2, 3, 33, 33), 48),
    ],
)
def test_contract(backbone: Backbone, shape: tuple[int, ...], features: int) -> None:
    backbone.eval()
    x = torch.rand(shape)
    with torch.no_grad():
        maps, pooled = backbone.forward_map(x), backbone(x)
    assert backbone.num_features == features
    assert backbone.clip_dims == len(shape) - 2
    assert maps.ndim == len(shape)
    assert maps.shape[:2] == pooled.shape == (2, features)
    assert torch.equal(backbone.pool(maps), pooled)
    assert torch.allclose(maps.flatten(2).mean(2), pooled)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions_without_its_classifier(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(tv, name)(weights=None).eval()
    torch.manual_seed(0)
    ours = TorchvisionResNet(name=name).eval()
    state = {n: t for n, t in theirs.state_dict().items() if not n.startswith("fc.")}
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(t, state[n]) for n, t in ours.state_dict().items())
    theirs.fc = nn.Identity()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_r3d_is_torchvisions_without_its_classifier() -> None:
    theirs, ours = tv.video.r3d_18(weights=None).eval(), TorchvisionVideo(name="r3d_18").eval()
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("name", RESNETS)
def test_every_resnet_builds(name: str) -> None:
    with torch.device("meta"):
        assert TorchvisionResNet(name=name).num_features in (512, 2048)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_tiny_trains(norm: str) -> None:
    torch.manual_seed(0)
    backbone = TinyBackbone(width=8, norm=norm)
    backbone(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules()) == (norm == "batch")


@pytest.mark.parametrize(
    "backbone",
    [
        TinyBackbone(width=8, stages=2, norm="group"),
        TorchvisionResNet(name="resnet18", small_stem=True),
        TorchvisionVideo(name="mc3_18"),
    ],
)
def test_spec_builds_the_same_network(backbone: Backbone) -> None:
    again = build_backbone(backbone.spec)
    assert again is not None
    shapes = {n: t.shape for n, t in backbone.state_dict().items()}
    assert {n: t.shape for n, t in again.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TorchvisionResNet(name="resnet20"), "'resnet20'; there are resnet18, resnet34"),
        (lambda: TorchvisionVideo(name="i3d"), "'i3d'; there are r3d_18"),
        (lambda: TinyBackbone(width=6), "width=6"),
        (lambda: TinyBackbone(stages=0), "stages=0"),
        (lambda: TinyBackbone(norm="layer"), "norm='layer'"),
        (lambda: WrappedBackbone(nn.Identity(), num_features=0), "num_features=0"),
        (lambda: WrappedBackbone(nn.Identity(), num_features=3, clip_dims=4), "clip_dims=4"),
        (
            lambda: WrappedBackbone(nn.Identity(), num_features=3, map_method="maps"),
            "Identity has no such method",
        ),
    ],
)
def test_wrong_values_are_named(build: type, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build()


class Foreign(nn.Module):
    """A network of someone else's making."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).amax((2, 3))


def test_a_foreign_network_is_wrapped() -> None:
    net = Foreign()
    backbone = WrappedBackbone(net, num_features=5, map_method="features")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone(x), net(x))
    assert torch.equal(backbone.forward_map(x), net.features(x))


def test_a_network_that_returns_maps_is_pooled() -> None:
    backbone = WrappedBackbone(nn.Conv3d(3, 4, 3), num_features=4, clip_dims=3)
    x = torch.rand(2, 3, 4, 8, 8)
    assert torch.allclose(backbone(x), backbone.net(x).mean((2, 3, 4)), atol=1e-6)
    assert torch.equal(backbone.forward_map(x), backbone.net(x))


def test_a_wrong_declaration_is_named() -> None:
    x = torch.rand(2, 3, 16, 16)
    with pytest.raises(UserError, match=r"returns shape \(2, 5\), .* \(N, 7, ...\)"):
        WrappedBackbone(Foreign(), num_features=7)(x)
    with pytest.raises(UserError, match="map_method"):
        WrappedBackbone(Foreign(), num_features=5).forward_map(x)
