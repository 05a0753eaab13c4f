"""Initial weights from every form of file that people have, by name."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable, Mapping
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as tv
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    TinyBackbone,
    TorchvisionResNet,
    TorchvisionVideo,
    WrappedBackbone,
    export_backbone,
    load_backbone,
    load_initial_weights,
)
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel

F, D = 512, 16
HEADS = ("fc_inter", "fc_intra", "fc_order", "fc_tsn")


@cache
def resnet(seed: int) -> tv.ResNet:
    torch.manual_seed(seed)
    net = tv.resnet18(weights=None)
    for buffer in net.buffers():  # statistics that differ from a fresh network's
        buffer.copy_(buffer + torch.randint(1, 9, buffer.shape))
    return net


def head(prefix: str, dim: int = D) -> dict[str, Tensor]:
    return {
        f"{prefix}.0.weight": torch.randn(F, F),
        f"{prefix}.0.bias": torch.randn(F),
        f"{prefix}.2.weight": torch.randn(dim, F),
        f"{prefix}.2.bias": torch.randn(dim),
    }


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def body(net: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in net.state_dict().items() if not n.startswith("fc.")}


def moco(seed: int = 1, dim: int = D) -> dict[str, Any]:
    """Return a checkpoint as MoCo v2's training writes it."""
    query = {**body(resnet(seed)), **head("fc", dim)}
    key = {**body(resnet(seed + 100)), **head("fc", dim)}
    state = {**prefixed("module.encoder_q.", query), **prefixed("module.encoder_k.", key)}
    state["module.queue"] = torch.randn(dim, 32)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    return {"epoch": 200, "arch": "resnet18", "state_dict": state}


def released(prefix: str = "module.", segments: int = 3) -> dict[str, Any]:
    """Return a checkpoint as the authors' training writes it."""
    heads = {name: tensor for fc in HEADS for name, tensor in head(fc).items()}
    heads["fc_order_classifier.weight"] = torch.randn(4, 2 * segments * D)
    heads["fc_order_classifier.bias"] = torch.randn(4)
    model = {**body(resnet(2)), **heads}
    return {
        "opt": argparse.Namespace(base_lr=0.1, model_mlp=True, pretrained_model="moco.pth"),
        "model": prefixed(prefix, model),
        "model_ema": {**body(resnet(102)), **heads},
        "contrast": {"memory": torch.randn(32, D)},
        "contrast_tsn": {"memory": torch.randn(32, D)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "scheduler": {"last_epoch": 3},
        "epoch": 400,
    }


def pretraining(backbone: nn.Module | None = None, dim: int = D) -> PretrainModule:
    torch.manual_seed(9)
    sizes = {"embedding_dim": dim, "queue_size": 32}
    return PretrainModule(
        backbone=backbone or TorchvisionResNet(name="resnet18"),
        objectives={
            "inter": partial(InterFrame, **sizes),
            "intra": partial(IntraFrame, embedding_dim=dim),
            "video": partial(VideoLevel, num_segments=3, **sizes),
            "order": partial(TemporalOrder, num_segments=3, embedding_dim=dim),
        },
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )


def save(tmp_path: Path, content: Any, name: str = "weights.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def assert_backbone(module: nn.Module, net: nn.Module) -> None:
    state = module.state_dict()
    for name, tensor in body(net).items():
        assert torch.equal(state[name], tensor), name


def assert_follows(module: PretrainModule) -> None:
    assert module.key_encoder is not None
    key = module.key_encoder.state_dict()
    assert all(torch.equal(t, key[n]) for n, t in module.query_encoder.state_dict().items())
    for objective in module.objectives.values():
        key = objective.key_head.state_dict()
        assert all(torch.equal(t, key[n]) for n, t in objective.query_head.state_dict().items())


def test_moco_initialises_the_backbone_and_all_heads(tmp_path: Path) -> None:
    content = moco()
    module = pretraining()
    report = load_initial_weights(module, save(tmp_path, content))
    assert_backbone(module.query_encoder, resnet(1))
    for objective in module.objectives.values():
        for name, tensor in objective.query_head.state_dict().items():
            assert torch.equal(tensor, content["state_dict"][f"module.encoder_q.fc.{name}"])
    assert_follows(module)
    assert report.form == "moco"
    assert report.missing == ()
    assert {name.split(".")[1] for name in report.left} == {"encoder_k", "queue", "queue_ptr"}
    assert "objectives.order.query_head.2.bias" in report.loaded
    assert len(report.loaded) == len(body(resnet(1))) + 4 * 4


def test_moco_without_heads(tmp_path: Path) -> None:
    module = pretraining()
    before = {n: t.clone() for n, t in module.objectives.state_dict().items()}
    report = load_initial_weights(module, save(tmp_path, moco()), heads=False)
    assert "module.encoder_q.fc.0.weight" in report.left
    assert all(torch.equal(t, before[n]) for n, t in module.objectives.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_released_checkpoint(tmp_path: Path, prefix: str) -> None:
    content = released(prefix)
    module = pretraining()
    report = load_initial_weights(module, save(tmp_path, content))
    assert_backbone(module.query_encoder, resnet(2))
    model = content["model"]
    names = {"inter": "fc_inter", "intra": "fc_intra", "video": "fc_tsn", "order": "fc_order"}
    for name, theirs in names.items():
        for key, tensor in module.objectives[name].query_head.state_dict().items():
            assert torch.equal(tensor, model[f"{prefix}{theirs}.{key}"])
    classifier = module.objectives["order"].classifier
    assert torch.equal(classifier.weight, model[f"{prefix}fc_order_classifier.weight"])
    assert_follows(module)
    assert (report.form, report.missing, report.left) == ("released", (), ())


def test_torchvision_file(tmp_path: Path) -> None:
    module = pretraining()
    report = load_initial_weights(module, save(tmp_path, resnet(3).state_dict()))
    assert_backbone(module.query_encoder, resnet(3))
    assert_follows(module)
    assert (report.form, report.missing) == ("torchvision", ())
    assert report.left == ("fc.weight", "fc.bias")


def test_torchvision_file_without_batch_counters(tmp_path: Path) -> None:
    old = {n: t for n, t in body(resnet(3)).items() if not n.endswith("num_batches_tracked")}
    report = load_initial_weights(TorchvisionResNet(name="resnet18"), save(tmp_path, old))
    assert len(report.missing) == 20
    assert all(name.endswith("num_batches_tracked") for name in report.missing)


def test_own_checkpoint_and_export(tmp_path: Path) -> None:
    trained = pretraining()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter))
    checkpoint = {"state_dict": trained.state_dict(), "global_step": 7, "epoch": 1}
    module = pretraining()
    report = load_initial_weights(module, save(tmp_path, checkpoint, "last.ckpt"))
    assert report.form == "vclr_lightning"
    for name in ("inter", "intra", "video", "order"):
        ours = module.objectives[name].query_head.state_dict()
        theirs = trained.objectives[name].query_head.state_dict()
        assert all(torch.equal(t, theirs[n]) for n, t in ours.items())
    assert torch.equal(
        module.objectives["order"].classifier.weight, trained.objectives["order"].classifier.weight
    )
    assert_follows(module)
    left = [n for n in report.left if not n.startswith(("key_encoder.", "objectives."))]
    assert left == []

    exported = export_backbone(trained, tmp_path / "backbone.safetensors")
    report = load_initial_weights(other := pretraining(), exported)
    assert (report.form, report.missing, report.left) == ("vclr_lightning", (), ())
    assert_backbone(other.query_encoder, trained.query_encoder)


def test_compiled_and_wrapped_names_are_the_same_names(tmp_path: Path) -> None:
    compiled = prefixed("_orig_mod.", resnet(3).state_dict())
    wrapped = WrappedBackbone(resnet(4), num_features=512)
    load_initial_weights(wrapped, save(tmp_path, compiled))
    assert_backbone(wrapped.net, resnet(3))
    exported = export_backbone(wrapped, tmp_path / "wrapped.safetensors")
    assert_backbone(load_backbone(exported, resnet(5)), resnet(3))


def test_other_files_by_the_only_prefix_that_fits(tmp_path: Path) -> None:
    state = {**prefixed("student.body.", body(resnet(6))), "student.head.weight": torch.ones(2)}
    file = save(tmp_path, {"model": state, "step": 3})
    backbone = TorchvisionResNet(name="resnet18")
    report = load_initial_weights(backbone, file)
    assert_backbone(backbone, resnet(6))
    assert (report.form, report.left) == ("other", ("student.head.weight",))


def test_other_files_with_two_networks_need_a_prefix(tmp_path: Path) -> None:
    state = {**prefixed("student.", body(resnet(6))), **prefixed("teacher.", body(resnet(7)))}
    file = save(tmp_path, state)
    with pytest.raises(UserError, match=r"'student\.', 'teacher\.'; choose one by prefix"):
        load_initial_weights(TorchvisionResNet(name="resnet18"), file)
    load_initial_weights(backbone := TorchvisionResNet(name="resnet18"), file, prefix="teacher.")
    assert_backbone(backbone, resnet(7))
    with pytest.raises(UserError, match=r"prefix='tutor\.'"):
        load_initial_weights(backbone, file, prefix="tutor.")


@pytest.mark.parametrize("build", [moco, released, lambda: {"state_dict": resnet(3).state_dict()}])
def test_order_in_the_file_changes_nothing(tmp_path: Path, build: Callable[[], Any]) -> None:
    content = build()
    modules = []
    for shuffled in (False, True):
        for key in ("state_dict", "model"):
            if shuffled and key in content:
                names = list(content[key])
                random.Random(0).shuffle(names)
                content[key] = {name: content[key][name] for name in names}
        modules.append(pretraining())
        load_initial_weights(modules[-1], save(tmp_path, content))
    first, second = (module.state_dict() for module in modules)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_another_network_is_named(tmp_path: Path) -> None:
    file = save(tmp_path, resnet(3).state_dict())
    fits = r"the file fits TorchvisionResNet\(name='resnet18'"
    with pytest.raises(UserError, match=rf"holds no weights for TinyBackbone.*{fits}"):
        load_initial_weights(TinyBackbone(width=8), file)
    with pytest.raises(UserError, match=rf"has no layer1.2.conv1.weight.*{fits}"):
        load_initial_weights(TorchvisionResNet(name="resnet34"), file)
    with pytest.raises(UserError, match=rf"has shape \(64, 64, 3, 3\), but .*{fits}"):
        load_initial_weights(TorchvisionResNet(name="resnet50"), file)
    with pytest.raises(UserError, match=r"conv1.weight of .* \(64, 3, 7, 7\), .* \(64, 3, 3, 3\)"):
        load_initial_weights(TorchvisionResNet(name="resnet18", small_stem=True), file)
    with pytest.raises(UserError, match=fits):
        load_initial_weights(TorchvisionVideo(name="r3d_18"), file)


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    module = pretraining(dim=24)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UserError, match=r"fc.2.weight of .* \(16, 512\), .* \(24, 512\)"):
        load_initial_weights(module, save(tmp_path, moco()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_head_of_another_depth_is_left(tmp_path: Path) -> None:
    content = moco()
    for name in [n for n in content["state_dict"] if ".fc." in n]:
        del content["state_dict"][name]
    content["state_dict"]["module.encoder_q.fc.weight"] = torch.ones(D, F)  # MoCo v1
    report = load_initial_weights(pretraining(), save(tmp_path, content))
    assert not any(name.startswith("objectives.") for name in report.loaded)
    assert "module.encoder_q.fc.weight" in report.left


def test_a_classifier_of_other_segments_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(4, 160\), .* \(4, 96\); set embedding_dim"):
        load_initial_weights(pretraining(), save(tmp_path, released(segments=5)))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run by the file",))


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = TinyBackbone(width=8)
    cases = {
        "there is no weights file": tmp_path / "nowhere.pth",
        "holds code: to read it is to run builtins.print": save(
            tmp_path, {"model": Harmful()}, "harmful.pth"
        ),
        "holds no weights: no state dict": save(tmp_path, {"epoch": 3}, "empty.pth"),
        "does not begin as a file of PyTorch": tmp_path / "text.pth",
    }
    (tmp_path / "text.pth").write_text("not weights at all")
    for says, file in cases.items():
        with pytest.raises(UserError, match=says):
            load_initial_weights(backbone, file)
    whole = save(tmp_path, backbone.state_dict(), "cut.pth")
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(UserError, match="damaged"):
        load_initial_weights(backbone, whole)
    assert "run by the file" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; get it again"),
        (
            b"\n<html>404</html>",
            "is an HTML page, as a failed download leaves; get the file again",
        ),
        (b'{"error": "not found"}', "is a JSON text, as a failed download leaves"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "is Git LFS's pointer to the file; run git",
        ),
        (
            b"some words",
            "does not begin as a file of PyTorch or safetensors; give a file of weights",
        ),
        (b"PK\x03\x04 and no more", "is damaged or cut short, as an interrupted download"),
        (b"\x89HDF\r\n", "is an HDF5 file, as Keras and TensorFlow write; give a file of PyTorch"),
        (b"\x08\x08\x12\x07pytorch", "is an ONNX file; give a file of PyTorch"),
        (b"\x1f\x8b\x08", "is packed by gzip; unpack it"),
        (bytes(257) + b"ustar", "is a tar archive; unpack it"),
        (b"\x93NUMPY", "is an array of NumPy"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_another_file_is_told_in_words(
    content: bytes, told: str, name: str, tmp_path: Path
) -> None:
    """One sentence, nothing of what the library said."""
    (file := tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_initial_weights(TinyBackbone(width=8), file)
    assert str(error.value).startswith(f"{file} {told}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file((source := TinyBackbone(width=8)).state_dict(), file, metadata)
    report = load_initial_weights(target := TinyBackbone(width=8), file)
    assert (report.missing, report.left) == ((), ())
    assert torch.equal(target.state_dict()["stem.weight"], source.state_dict()["stem.weight"])


@pytest.mark.parametrize("name", ["weights.ckpt", "weights.safetensors"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(file := tmp_path / name)
    with pytest.raises(UserError, match="is a device or a pipe, no regular file"):
        load_initial_weights(TinyBackbone(width=8), file)


def test_report_as_table_and_dict(tmp_path: Path) -> None:
    report = load_initial_weights(pretraining(), save(tmp_path, moco()))
    console = Console(width=300, file=(sink := StringIO()))
    console.print(report.table())
    text = sink.getvalue()
    assert "MoCo v2" in text
    assert "query_encoder.layer1" in text
    assert "objectives.inter.query_head (4)" in text
    assert "module.encoder_k.fc (4)" in text
    assert report.as_dict()["form"] == "moco"


def test_pictures_normalised_otherwise_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = PretrainModule(
        backbone=TinyBackbone(width=8),
        objectives={"intra": IntraFrame},
        optimizer=partial(torch.optim.SGD, lr=0.1),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    file = export_backbone(source, tmp_path / "b.safetensors")
    same = load_backbone(file)
    assert (same.pixel_mean, same.pixel_std) == ((0.5,) * 3, (0.2,) * 3)
    with caplog.at_level("WARNING", logger="vclr_lightning"):
        load_initial_weights(same, file)
        assert not caplog.messages
        load_initial_weights(TinyBackbone(width=8), file)
    assert "normalised by mean and std [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]" in caplog.messages[0]
