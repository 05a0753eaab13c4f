"""Handing weights to other programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from rich.console import Console
from torch import nn

from vclr_lightning import cli
from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    TimmBackbone,
    TinyBackbone,
    TorchvisionResNet,
    TorchvisionVideo,
    export_backbone,
    load_backbone,
)
from vclr_lightning.models.convert_weights import convert_checkpoint
from vclr_lightning.models.foreign_names import EVERY, LAYOUTS, foreign_name
from vclr_lightning.modules import FinetuneModule


@pytest.fixture(scope="module")
def moco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("moco") / "moco.pth.tar"
    net = tv.resnet18(weights=None, num_classes=16)
    state = {f"module.encoder_q.{n}": t for n, t in net.state_dict().items()}
    state["module.queue"] = torch.zeros(16, 8)
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state}, file)
    return file


def test_to_safetensors_and_to_pth(moco: Path, tmp_path: Path) -> None:
    state = torch.load(moco, weights_only=True)["state_dict"]
    first = convert_checkpoint(moco, tmp_path / "b.safetensors")
    second = convert_checkpoint(tmp_path / "b.safetensors", tmp_path / "b.pth")
    assert first.form == "moco"
    assert second.form == "vclr_lightning"
    assert first.backbone == second.backbone
    assert first.backbone.startswith("TorchvisionResNet(name='resnet18'")
    assert sorted(first.names) == sorted(second.names)
    assert first.left == ("module.encoder_q.fc.weight", "module.encoder_q.fc.bias", "module.queue")
    written = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(t, state[f"module.encoder_q.{n}"]) for n, t in written.items())
    missing, unexpected = tv.resnet18(weights=None).load_state_dict(written, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    backbone = load_backbone(tmp_path / "b.pth").state_dict()
    assert all(torch.equal(t, backbone[n]) for n, t in written.items())


def mmaction_names(
    state: Mapping[str, Any], *, depth: int = 50, tsm: bool = False
) -> dict[str, Any]:
    layout = LAYOUTS["mmaction-tsm" if tsm else "mmaction"]
    every = EVERY[f"resnet{depth}"]
    return {foreign_name(name, layout, every=every): tensor for name, tensor in state.items()}


def test_names_of_mmaction_pair_each_convolution_with_its_norm() -> None:
    state = {n: t for n, t in tv.resnet50(weights=None).state_dict().items() if "fc." not in n}
    renamed = mmaction_names(state)
    assert len(renamed) == len(state)
    assert list(map(id, renamed.values())) == list(map(id, state.values()))
    assert renamed["backbone.conv1.bn.running_mean"] is state["bn1.running_mean"]
    assert renamed["backbone.layer3.5.conv3.conv.weight"] is state["layer3.5.conv3.weight"]
    assert renamed["backbone.layer3.5.conv3.bn.weight"] is state["layer3.5.bn3.weight"]
    assert renamed["backbone.layer2.0.downsample.bn.bias"] is state["layer2.0.downsample.1.bias"]
    modules = {name.rpartition(".")[0] for name in renamed}
    assert {m.removesuffix(".conv") for m in modules if m.endswith(".conv")} == {
        m.removesuffix(".bn") for m in modules if m.endswith(".bn")
    }


STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STAGES |= {152: (3, 8, 36, 3)}
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def of_mmaction2(depth: int, *, tsm: bool) -> set[str]:
    """Names in a recogniser of MMAction2 1.2, module by module: ConvModule, TemporalShift."""
    small, names = depth < 50, set()

    def conv_module(where: str, *, shifted: bool = False) -> None:
        names.add(f"{where}.conv.net.weight" if shifted else f"{where}.conv.weight")
        names.update(f"{where}.bn.{what}" for what in STATE)

    conv_module("backbone.conv1")
    for stage, blocks in enumerate(STAGES[depth]):
        for block in range(blocks):
            where = f"backbone.layer{stage + 1}.{block}"
            every = 2 if STAGES[depth][2] >= 23 else 1
            conv_module(f"{where}.conv1", shifted=tsm and block % every == 0)
            conv_module(f"{where}.conv2")
            if not small:
                conv_module(f"{where}.conv3")
            if block == 0 and (stage > 0 or not small):
                conv_module(f"{where}.downsample")
    return names


@pytest.mark.parametrize("tsm", [False, True])
@pytest.mark.parametrize("depth", STAGES)
def test_names_are_those_of_mmaction2_s_own_networks(depth: int, tsm: bool) -> None:
    with torch.device("meta"):
        state = TorchvisionResNet(name=f"resnet{depth}").state_dict()
    renamed = mmaction_names(state, depth=depth, tsm=tsm)
    assert set(renamed) == of_mmaction2(depth, tsm=tsm)
    shifts = sum(".net." in name for name in renamed)
    assert shifts == (tsm and {18: 8, 34: 16, 50: 16, 101: 18, 152: 26}[depth])


OTHERS: list[Callable[[], nn.Module]] = [
    partial(TorchvisionResNet, name="resnext50_32x4d"),
    partial(TorchvisionVideo, name="r3d_18"),
    partial(TorchvisionResNet, name="resnet18", small_stem=True),
    partial(TinyBackbone, width=8),
    partial(TimmBackbone, name="test_resnet"),
]


@pytest.mark.parametrize("names", ["mmaction", "mmaction-tsm"])
@pytest.mark.parametrize("build", OTHERS)
def test_networks_that_mmaction2_does_not_have_are_refused(
    build: Callable[[], nn.Module], names: str, tmp_path: Path
) -> None:
    file = export_backbone(build(), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"MMAction2 has no names for"):
        convert_checkpoint(file, tmp_path / "m.pth", names=names)


def test_a_tsm_classifier_is_handed_to_mmaction2_s_tsm(tmp_path: Path) -> None:
    for depth, head in ((18, "tsm"), (101, "tsm")):
        module = FinetuneModule(
            backbone=TorchvisionResNet(name=f"resnet{depth}"),
            num_classes=2,
            head=head,  # type: ignore[arg-type]
            optimizer=partial(torch.optim.SGD, lr=0.1),
        )
        checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, tmp_path / "last.ckpt")
        export_backbone(module, tmp_path / "b.safetensors")
        export_backbone(tmp_path / "last.ckpt", tmp_path / "c.safetensors")
        for file in ("last.ckpt", "b.safetensors", "c.safetensors")[: 1 if depth == 101 else 3]:
            if depth == 101:
                with pytest.raises(UserError, match="every other block of a resnet101"):
                    convert_checkpoint(tmp_path / file, tmp_path / "m.pth", names="mmaction")
                continue
            done = convert_checkpoint(tmp_path / file, tmp_path / "m.pth", names="mmaction")
            classifier = {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}
            expected = of_mmaction2(depth, tsm=head == "tsm")
            assert set(done.names) == (expected | classifier if file == "last.ckpt" else expected)


def test_nothing_is_written_of_what_has_no_such_names(tmp_path: Path) -> None:
    torch.save(
        {"net." + n: t for n, t in TinyBackbone(width=8).state_dict().items()}, tmp_path / "t.pth"
    )
    with pytest.raises(UserError, match=r"MMAction2 has no names for TinyBackbone\(width=8"):
        convert_checkpoint(tmp_path / "t.pth", tmp_path / "m.pth", names="mmaction", prefix="net.")
    assert not (tmp_path / "m.pth").exists()


def test_what_cannot_be_converted(moco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.safetensors, \.pth, \.pt, \.onnx"):
        convert_checkpoint(moco, tmp_path / "b.bin")
    with pytest.raises(UserError, match=r"write a \.pth"):
        convert_checkpoint(moco, tmp_path / "b.safetensors", names="mmaction")
    torch.save({"a.b": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"names like a\.b; give the prefix"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "b.pth")


def test_command(moco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.safetensors"
    assert cli.main(["convert", str(moco), str(out)]) == 0
    assert "MoCo v2" in re.sub(r"[│\s]+", " ", capsys.readouterr().out)  # it may be broken
    assert cli.main(["convert", str(moco), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["convert", str(moco), str(out), "--overwrite"]) == 0
    assert cli.main(["convert", str(tmp_path / "nowhere.pth"), str(tmp_path / "c.pth")]) == 2
    error = capsys.readouterr().err
    assert "there is no weights file" in error
    assert "Traceback" not in error


def test_table_bears_brackets_in_paths(moco: Path, tmp_path: Path) -> None:
    target = tmp_path / "[red]b.pth"
    console = Console(width=300, file=(sink := StringIO()))
    console.print(convert_checkpoint(moco, target).table())
    assert "[red]b.pth" in sink.getvalue()


def s3d_of_small_variances() -> nn.Module:
    net = TorchvisionVideo(name="s3d").eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):  # where eps matters
            buffer.fill_(1e-3)
    return net


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (s3d_of_small_variances, (1, 3, 8, 32, 32)),
        (partial(TinyBackbone, width=8), (2, 3, 32, 32)),
        (partial(TimmBackbone, name="vit_tiny_patch16_224", image_size=32), (2, 3, 32, 32)),
    ],
)
def test_a_plain_state_dict_says_what_shapes_do_not(
    build: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """BatchNorm's eps, and how pictures are normalised, also where names are nobody's."""
    backbone = build().eval()
    backbone.pixel_mean, backbone.pixel_std = (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)  # type: ignore[assignment]
    file = export_backbone(backbone, tmp_path / "b.safetensors")
    convert_checkpoint(file, tmp_path / "b.pth")
    again = load_backbone(tmp_path / "b.pth")
    x = torch.rand(shape)
    with torch.no_grad():
        torch.testing.assert_close(again(x), backbone(x), rtol=0, atol=0)
    assert (again.pixel_mean, again.pixel_std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    fresh = build()
    load_backbone(tmp_path / "b.pth", fresh)
    fresh.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True))


class Doubled(TorchvisionResNet):
    """A class of the user's own under torchvision's names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_class_of_the_user_s_own_is_nobody_else_s_under_any_names(tmp_path: Path) -> None:
    file = export_backbone(Doubled(name="resnet18"), tmp_path / "b.safetensors")
    convert_checkpoint(file, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"Doubled.*none of this package's networks"):
        load_backbone(tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"MMAction2 has no names for .*Doubled"):
        convert_checkpoint(file, tmp_path / "m.pth", names="mmaction")
