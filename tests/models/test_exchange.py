"""Weights to and from other programs: the same features on both sides, or no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models as tv
from safetensors import safe_open
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    TimmBackbone,
    TinyBackbone,
    TorchvisionResNet,
    TorchvisionVideo,
    TSMResNet,
    export_backbone,
    load_backbone,
    load_initial_weights,
)
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.models.convert_weights import convert_checkpoint
from vclr_lightning.models.export import random_backbone
from vclr_lightning.modules import FinetuneModule, PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel
from vclr_lightning.stages.shared.finetuned import load_finetuned

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
CHANNELS = (64, 128, 256, 512)


class ConvModule(nn.Module):
    """Convolution, norm, and an activation for all but the last of a branch, as in mmcv."""

    def __init__(self, *sizes: int, kernel: int, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(*sizes, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(sizes[1])
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y.relu() if self.act else y


class Shift(nn.Module):
    """Of 8 parts of the channels one comes from the next frame, one from the previous one."""

    def __init__(self, net: nn.Module, frames: int) -> None:
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 8
        video = x.reshape(-1, self.frames, *x.shape[1:])
        next_one = video[:, 1:, :fold]
        next_one = torch.cat([next_one, torch.zeros_like(video[:, :1, :fold])], 1)
        last_one = torch.cat(
            [torch.zeros_like(video[:, :1, :fold]), video[:, :-1, fold : 2 * fold]], 1
        )
        whole = torch.cat([next_one, last_one, video[:, :, 2 * fold :]], 2)
        return self.net(whole.reshape(x.shape))


class Block(nn.Module):
    def __init__(self, before: int, channels: int, stride: int, *, small: bool) -> None:
        super().__init__()
        after = channels if small else 4 * channels
        if small:
            self.conv1 = ConvModule(before, channels, kernel=3, stride=stride)
            self.conv2 = ConvModule(channels, channels, kernel=3, act=False)
        else:
            self.conv1 = ConvModule(before, channels, kernel=1)
            self.conv2 = ConvModule(channels, channels, kernel=3, stride=stride)
            self.conv3 = ConvModule(channels, after, kernel=1, act=False)
        if stride > 1 or before != after:
            self.downsample = ConvModule(before, after, kernel=1, stride=stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        if hasattr(self, "conv3"):
            y = self.conv3(y)
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return (y + shortcut).relu()


class Backbone2D(nn.Module):
    def __init__(self, depth: int, *, frames: int = 0) -> None:
        super().__init__()
        self.conv1 = ConvModule(3, 64, kernel=7, stride=2)
        width, every = 64, 2 if BLOCKS[depth][2] >= 23 else 1
        for stage, count in enumerate(BLOCKS[depth]):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage and not i else 1
                layer.append(Block(width, CHANNELS[stage], stride, small=depth < 50))
                width = CHANNELS[stage] * (1 if depth < 50 else 4)
                if frames and i % every == 0:
                    block: Any = layer[i]
                    block.conv1.conv = Shift(block.conv1.conv, frames)
            self.add_module(f"layer{stage + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x), 3, 2, 1)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))


class Recognizer(nn.Module):
    """A stand-in for MMAction2's recognizers, by their description: names and values."""

    def __init__(self, depth: int, *, frames: int = 0, classes: int = 5) -> None:
        super().__init__()
        self.backbone = Backbone2D(depth, frames=frames)
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(512 if depth < 50 else 2048, classes)
        trained(self)

    def features(self, clips: Tensor) -> Tensor:
        return self.backbone(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clips), -1))


def trained(net: nn.Module) -> None:
    """Give norm layers values that differ, as after a training."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    net.eval()


def classifier(depth: int, head: Any) -> FinetuneModule:
    backbone = TorchvisionResNet(name=f"resnet{depth}")
    sgd = partial(torch.optim.SGD, lr=0.1)
    module = FinetuneModule(backbone=backbone, num_classes=5, head=head, optimizer=sgd)
    trained(module)
    return module


@pytest.mark.parametrize(("depth", "head"), [(18, "tsn"), (18, "tsm")])
@torch.no_grad()
def test_a_classifier_scores_the_same_in_mmaction2(depth: int, head: str, tmp_path: Path) -> None:
    module = classifier(depth, head)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "m.pth", names="mmaction")
    theirs = Recognizer(depth, frames=4 if head == "tsm" else 0)
    theirs.load_state_dict(torch.load(tmp_path / "m.pth", weights_only=True)["state_dict"])
    clips = torch.randint(0, 256, (2, 4, 3, 1, 48, 48), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (module.pixels.mean, module.pixels.std))
    pixels = ((clips / 255 - mean) / std).squeeze(3).transpose(1, 2)
    scores = theirs.cls_head.fc_cls(theirs.features(pixels)).mean(1)
    torch.testing.assert_close(module(clips), scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "frames"), [(18, 0), (18, 4), (101, 4)])
@torch.no_grad()
def test_a_recognizer_of_mmaction2_computes_the_same_here(
    depth: int, frames: int, tmp_path: Path
) -> None:
    theirs = Recognizer(depth, frames=frames)
    file = tmp_path / "recognizer.pth"
    meta = {"epoch": 50, "dataset_meta": {"classes": list("abcde")}}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, file)
    converted = file
    if depth == 18:
        done = convert_checkpoint(file, converted := tmp_path / "b.safetensors")
        assert done.form == "mmaction"
        assert done.left == ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")
    backbone = load_backbone(converted)
    clips = torch.rand(2, 3, 4, 32, 32)
    expected = theirs.features(clips)
    if frames:
        assert isinstance(backbone, TSMResNet)
        found = backbone(clips)
        expected = expected.mean(1)
    else:
        found = backbone(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if depth == 101:
        with pytest.raises(UserError, match="shifts before every other block"):
            load_finetuned(file)
        return
    module = load_finetuned(file)
    pixels = torch.randint(0, 256, (2, 4, 3, 1, 48, 48), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (module.pixels.mean, module.pixels.std))
    clips = ((pixels / 255 - mean) / std).squeeze(3).transpose(1, 2)
    expected = theirs.cls_head.fc_cls(theirs.features(clips)).mean(1)
    torch.testing.assert_close(module(pixels), expected, rtol=1e-4, atol=1e-4)
    assert module.class_names == tuple("abcde")
    convert_checkpoint(file, tmp_path / "again.pth", names="mmaction")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["state_dict"]
    assert again.keys() == theirs.state_dict().keys()  # and back again
    assert all(torch.equal(t, again[n]) for n, t in theirs.state_dict().items())


def test_a_tsm_of_other_blocks_is_refused(tmp_path: Path) -> None:
    for name in ("layer1.0.net.conv1.conv.weight", "layer2.0.non_local_block.g.conv.weight"):
        state = dict(Recognizer(18, frames=4).state_dict()) | {f"backbone.{name}": torch.zeros(1)}
        torch.save(state, tmp_path / "m.pth")
        with pytest.raises(UserError, match=f"TSM of MMAction2 with {name}"):
            load_backbone(tmp_path / "m.pth")


@torch.no_grad()
def test_torchvision_and_timm_compute_the_same_or_nothing_is_written(tmp_path: Path) -> None:
    net = TorchvisionResNet(name="resnet18")
    trained(net)
    file = export_backbone(net, tmp_path / "b.safetensors")
    pixels = torch.rand(2, 3, 64, 64)
    libraries = {"torchvision": tv.resnet18(), "timm": timm.create_model("resnet18")}
    for names, theirs in libraries.items():
        done = convert_checkpoint(file, tmp_path / f"{names}.pth", names=names)
        assert f"features of {names}'s own resnet18 agree" in done.checked
        state = torch.load(tmp_path / f"{names}.pth", weights_only=True)
        assert theirs.load_state_dict(state, strict=False) == (["fc.weight", "fc.bias"], [])
        theirs.fc = nn.Identity()
        torch.testing.assert_close(theirs.eval()(pixels), net(pixels), rtol=1e-4, atol=1e-4)
    vit = TimmBackbone(name="test_vit", image_size=64)
    export_backbone(vit, tmp_path / "vit.safetensors")
    done = convert_checkpoint(tmp_path / "vit.safetensors", tmp_path / "v.pth", names="timm")
    assert "timm's own test_vit agree" in done.checked


@pytest.mark.parametrize(
    ("build", "names", "said"),
    [
        (
            lambda: TorchvisionVideo(name="r3d_18", bn_eps=0.01),
            "torchvision",
            "computes other features",
        ),
        (
            lambda: TorchvisionResNet(name="resnet18", small_stem=True),
            "torchvision",
            "has other weights",
        ),
        (lambda: TorchvisionVideo(name="r3d_18"), "timm", "timm has no network r3d_18"),
        (lambda: TinyBackbone(width=8), "torchvision", "torchvision has no network"),
        (lambda: TSMResNet(name="resnet18"), "timm", "timm has no network .*TSMResNet"),
        (lambda: TSMResNet(name="resnet18"), "moco", "does not take what this network takes"),
        (lambda: TSMResNet(name="resnet18", divisions=4), "mmaction", "by 8 divisions, not 4"),
        (
            lambda: TSMResNet(name="resnet18", every=2),
            "mmaction",
            "every block .* a shift before one of 2",
        ),
        (lambda: TinyBackbone(width=8), "moco", "MoCo v2 has no names for TinyBackbone"),
    ],
)
def test_what_computes_something_else_there_is_refused(
    build: Callable[[], nn.Module], names: str, said: str, tmp_path: Path
) -> None:
    file = export_backbone(build(), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=said):
        convert_checkpoint(file, tmp_path / "other.pth", names=names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.safetensors"]


def pretraining() -> PretrainModule:
    common: dict[str, Any] = {"embedding_dim": 8}
    queue = common | {"queue_size": 16}
    return PretrainModule(
        backbone=TorchvisionResNet(name="resnet18"),
        objectives={
            "inter": partial(InterFrame, **queue),
            "intra": partial(IntraFrame, **common),
            "video": partial(VideoLevel, num_segments=3, **queue),
            "order": partial(TemporalOrder, num_segments=3, **common),
        },
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )


def test_the_released_code_gets_backbone_and_heads(tmp_path: Path) -> None:
    module, other = pretraining(), pretraining()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "last.ckpt")
    convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "vclr.pth", names="released")
    state = torch.load(tmp_path / "vclr.pth", weights_only=True)["state_dict"]
    own = dict(module.named_parameters())
    assert torch.equal(state["module.conv1.weight"], own["query_encoder.conv1.weight"])
    for theirs, ours in {"inter": "inter", "intra": "intra", "tsn": "video"}.items():
        head = own[f"objectives.{ours}.query_head.0.weight"]
        assert torch.equal(state[f"module.fc_{theirs}.0.weight"], head)
    order = own["objectives.order.classifier.weight"]
    assert torch.equal(state["module.fc_order_classifier.weight"], order)
    assert not any("queue" in name or "key" in name for name in state)
    assert read_checkpoint(tmp_path / "vclr.pth").form == "released"
    report = load_initial_weights(other, tmp_path / "vclr.pth")
    assert report.left == ()
    again = dict(other.named_parameters())
    assert all(torch.equal(again[n], p) for n, p in own.items() if ".query_head." in n)
    moco = convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "moco.pth", names="moco")
    assert all(name.startswith("module.encoder_q.") for name in moco.names)
    assert not any(".fc." in name for name in moco.names)  # which of four heads?


def test_the_head_of_moco_is_kept(tmp_path: Path) -> None:
    net = tv.resnet18(num_classes=16)
    net.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 16))
    state = {f"module.encoder_q.{n}": t for n, t in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "moco.pth")
    convert_checkpoint(tmp_path / "moco.pth", tmp_path / "again.pth", names="moco")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["state_dict"]
    assert again.keys() == state.keys()
    assert all(torch.equal(t, again[n]) for n, t in state.items())


@torch.no_grad()
def test_onnx_computes_the_same_for_any_batch_and_size(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = TinyBackbone(width=8)
    net.pixel_mean = (0.1, 0.2, 0.3)
    trained(net)
    file = export_backbone(net, tmp_path / "b.safetensors", metadata={"note": "x"})
    done = convert_checkpoint(file, tmp_path / "b.onnx")
    assert "onnxruntime agree" in done.checked
    session = runtime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 224, 224), (3, 3, 96, 64)):
        pixels = torch.rand(shape)
        (found,) = session.run(["features"], {"pixels": pixels.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), net(pixels), rtol=1e-3, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["note"] == "x"
    assert json.loads(metadata["backbone"])["_pixels_"][0] == [0.1, 0.2, 0.3]
    with pytest.raises(UserError, match="ONNX"):
        load_backbone(tmp_path / "b.onnx")


def test_onnx_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export_backbone(TinyBackbone(width=8), tmp_path / "b.safetensors")
    monkeypatch.setattr("vclr_lightning.models.onnx_file.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vclr_lightning\[onnx\]"):
        convert_checkpoint(file, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_the_card_says_data_recipe_and_numbers_and_stays_with_the_weights(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "k400"
    run.mkdir(parents=True)
    config = {
        "stage": {"name": "pretrain"},
        "epochs": 400,
        "data": {"root": "/secret/place/k400", "manifest": None},
        "optim": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.2}},
        "init": "/secret/place/moco.pth.tar",
    }
    module = pretraining()
    checkpoint = {"state_dict": module.state_dict(), "global_step": 40, "epoch": 2}
    torch.save(checkpoint | {"metadata": {"config": config}}, run / "last.ckpt")
    (run / "result.json").write_text('{"train/loss": 1.5, "val/knn_r1": 0.25}')
    probe = tmp_path / "outputs" / "probe" / "result.json"
    probe.parent.mkdir()
    probe.write_text('{"top1": 0.61234}')
    done = convert_checkpoint(run / "last.ckpt", tmp_path / "b.safetensors", results=[probe])
    card = done.card.read_text()
    assert done.card == tmp_path / "b.safetensors.md"
    for line in (
        "| videos | k400 |",
        "| epochs | 400 |",
        "| optimizer | SGD |",
        "| initial weights | moco.pth.tar |",
        "| method | inter+intra+video+order |",
        "| steps | 40 |",
        "| val/knn_r1 | 0.25 |",
        "| outputs/probe top1 | 0.6123 |",
        'load_backbone("b.safetensors")',
    ):
        assert line in card
    assert "secret" not in card
    assert "train/loss" not in card
    with safe_open(done.target, framework="pt") as opened:
        assert json.loads(opened.metadata()["card"])["Recipe"]["epochs"] == "400"
    again = convert_checkpoint(done.target, tmp_path / "c.pth").card.read_text()
    assert "| val/knn_r1 | 0.25 |" in again
    assert "secret" not in json.dumps(read_checkpoint(tmp_path / "c.pth").metadata)
    with pytest.raises(UserError, match=r"holds no numbers; give result\.json"):
        convert_checkpoint(run / "last.ckpt", tmp_path / "d.pth", results=[tmp_path / "no.json"])


def test_training_or_evaluation_mode_as_said(tmp_path: Path) -> None:
    file = export_backbone(TinyBackbone(width=8), tmp_path / "b.safetensors")
    assert load_backbone(file, train=True).training
    assert not load_backbone(file).training
    assert not random_backbone(file).training
