"""Backbones: the contract, and torchvision's own networks as the reference."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.encoders import evaluation_mode
from vclr_lightning.models import (
    Backbone,
    TinyBackbone,
    TorchvisionResNet,
    TorchvisionVideo,
    WrappedBackbone,
    export_backbone,
    load_backbone,
    load_initial_weights,
)
from vclr_lightning.models.torchvision import RESNETS
from vclr_lightning.models.trusted_networks import build_backbone


@pytest.mark.parametrize(
    ("build", "shape", "features"),
    [
        (lambda: TorchvisionResNet(name="resnet18"), (2, 3, 64, 64), 512),
        (lambda: TorchvisionResNet(name="resnet50", zero_init_residual=True), (2, 3, 64, 64), 2048),
        (lambda: TorchvisionResNet(name="resnet18", small_stem=True), (2, 3, 32, 32), 512),
        (lambda: TorchvisionVideo(name="r3d_18"), (2, 3, 4, 32, 32), 512),
        (lambda: TorchvisionVideo(name="s3d"), (2, 3, 16, 64, 64), 1024),
        (lambda: TinyBackbone(width=8), (2, 3, 40, 64), 64),
        (lambda: TinyBackbone(width=12, stages=2, norm="group"), (2, 3, 33, 33), 48),
    ],
)
def test_contract(build: Callable[[], Backbone], shape: tuple[int, ...], features: int) -> None:
    backbone = build().eval()
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


def test_s3d_is_built_to_be_trained_and_with_torchvision_s_weights_as_torchvision_s(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    theirs = tv.video.s3d(weights=None).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):  # small ones, where eps matters
            buffer.fill_(0.01)
    theirs.classifier, theirs.avgpool = nn.Identity(), nn.AdaptiveAvgPool3d(1)
    torch.save(theirs.state_dict(), tmp_path / "s3d.pth")
    fresh = TorchvisionVideo(name="s3d")
    norms = [layer for layer in fresh.modules() if isinstance(layer, nn.BatchNorm3d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-5)}
    loaded = load_backbone(tmp_path / "s3d.pth")
    x = torch.rand(2, 3, 16, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), theirs(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        UserError, match=r"for BatchNorm of eps 0\.001, and this network's has 1e-05"
    ):
        load_backbone(tmp_path / "s3d.pth", fresh)
    load_initial_weights(TorchvisionVideo(name="s3d", bn_eps=0.001), tmp_path / "s3d.pth")


def test_a_checkpoint_of_the_first_s3d_is_read_as_it_was_trained(tmp_path: Path) -> None:
    old = TorchvisionVideo(name="s3d", bn_momentum=0.001, bn_eps=0.001)
    state = {f"query_encoder.{n}": t for n, t in old.state_dict().items()}
    spec = {"_target_": "vclr_lightning.models.TorchvisionVideo", "name": "s3d"}
    torch.save({"state_dict": state, "metadata": {"backbone": spec}}, tmp_path / "last.ckpt")
    loaded: Any = load_backbone(tmp_path / "last.ckpt")
    assert loaded.spec == old.spec
    assert (loaded.features[0][0][1].momentum, loaded.features[0][0][1].eps) == (0.001, 0.001)
    with pytest.raises(UserError, match=r"give backbone\.bn_eps=0\.001"):
        load_initial_weights(TorchvisionVideo(name="s3d"), tmp_path / "last.ckpt")
    new = export_backbone(TorchvisionVideo(name="s3d"), tmp_path / "new.safetensors")
    assert load_backbone(new).spec["bn_eps"] == 1e-5  # type: ignore[index, union-attr]


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
    "build",
    [
        lambda: TinyBackbone(width=8, stages=2, norm="group"),
        lambda: TorchvisionResNet(name="resnet18", small_stem=True),
        lambda: TorchvisionVideo(name="mc3_18"),
    ],
)
def test_spec_builds_the_same_network(build: Callable[[], Backbone]) -> None:
    backbone = build()
    again = build_backbone(backbone.spec)
    assert again is not None
    shapes = {n: t.shape for n, t in backbone.state_dict().items()}
    assert {n: t.shape for n, t in again.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: TorchvisionResNet(name="resnet20"), "'resnet20'; there are resnet18, resnet34"),
        (lambda: TorchvisionVideo(name="i3d"), "'i3d'; there are r3d_18"),
        (lambda: TorchvisionVideo(bn_momentum=0), "bn_momentum=0 must be above 0"),
        (lambda: TorchvisionVideo(bn_eps=0), "bn_eps=0 above 0"),
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


class Deep(nn.Module):
    """A network with parameters of its own beside its layers, and a mode of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.zeros(1))
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
        self.body[1].eval()
        self.frozen = False

    def train(self, mode: bool = True) -> Deep:
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.body(x).amax((2, 3)) + self.shift + float(self.training)


def test_a_wrapped_network_keeps_its_names_everywhere(tmp_path: Path) -> None:
    net = Deep()
    backbone = WrappedBackbone(net, num_features=5)
    parent = nn.ModuleDict({"query_encoder": backbone})
    for of, prefix in ((backbone, ""), (parent, "query_encoder.")):
        state = [prefix + name for name in net.state_dict()]
        assert list(of.state_dict()) == state
        assert {n for n, _ in of.named_parameters()} | {n for n, _ in of.named_buffers()} == {
            *state
        }
        layers = [n.removeprefix(prefix) for n, _ in of.named_modules() if n.startswith(prefix)]
        assert {*layers, ""} >= {n for n, _ in net.named_modules()}
        assert not any(n.startswith("net") for n in layers)
        assert of.get_parameter(f"{prefix}body.0.weight") is net.body[0].weight
        assert of.get_submodule(f"{prefix}body.1") is net.body[1]
    file = export_backbone(backbone, tmp_path / "b.safetensors")
    assert set(load_file(file)) == set(net.state_dict())


def test_a_wrapped_network_is_one_with_its_wrapper() -> None:
    net = Deep()
    backbone = WrappedBackbone(net, num_features=5)
    x = torch.rand(2, 3, 8, 8)
    with evaluation_mode(backbone):
        assert not net.training
        backbone(x)
    assert net.training
    assert not net.body[1].training  # as before
    assert torch.equal(backbone.train()(x), net(x))
    net.frozen = True
    assert not backbone.train().net.body.training
    again = copy.deepcopy(backbone)
    assert again.net is not net
    with torch.no_grad():
        again.get_parameter("scale").fill_(2)
    assert (float(again.net.scale.detach()), float(net.scale.detach())) == (2, 1)
    again = pickle.loads(pickle.dumps(backbone)).double().eval()
    assert again.net.body[0].weight.dtype == torch.float64
    torch.testing.assert_close(again(x.double()).float(), backbone.eval()(x))


@pytest.mark.parametrize("before", ["", "net."])
def test_checkpoints_of_wrapped_networks_load_by_either_name(before: str, tmp_path: Path) -> None:
    backbone, other = (WrappedBackbone(Deep(), num_features=5) for _ in range(2))
    saved = {f"query_encoder.{before}{n}": t for n, t in other.net.state_dict().items()}
    nn.ModuleDict({"query_encoder": backbone}).load_state_dict(saved)
    torch.save({"state_dict": saved}, tmp_path / "last.ckpt")
    loaded = load_backbone(tmp_path / "last.ckpt", WrappedBackbone(Deep(), num_features=5))
    for name, tensor in other.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], tensor)
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_network_of_which_a_layer_is_called_net() -> None:
    wrapped = WrappedBackbone(nn.ModuleDict({"net": nn.Linear(2, 2)}), num_features=2)
    assert list(wrapped.state_dict()) == ["net.weight", "net.bias"]
    wrapped.load_state_dict(wrapped.state_dict())


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
