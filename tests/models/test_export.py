"""The exported backbone: whole, self-describing, and at home in other projects."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    TinyBackbone,
    TorchvisionResNet,
    WrappedBackbone,
    export_backbone,
    load_backbone,
    random_backbone,
)
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import VideoLevel


@pytest.fixture
def trained() -> PretrainModule:
    torch.manual_seed(0)
    module = PretrainModule(
        backbone=TinyBackbone(width=8),
        objectives={"video": partial(VideoLevel, embedding_dim=8, queue_size=16)},
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    for buffer in module.query_encoder.buffers():
        buffer.add_(1)
    return module


def same(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(tensor, theirs[n]) for n, tensor in first.state_dict().items())


def test_holds_the_query_backbone_and_says_what_it_is(
    trained: PretrainModule, tmp_path: Path
) -> None:
    file = export_backbone(trained, tmp_path / "new" / "b.safetensors", metadata={"note": "x"})
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    spec = json.loads(metadata.pop("backbone"))
    assert spec == {
        "_target_": "vclr_lightning.models.TinyBackbone",
        "width": 8,
        "stages": 3,
        "norm": "batch",
    }
    assert len(metadata.pop("crc32")) == 8
    assert metadata == {
        "vclr_lightning": __version__,
        "method": "video",
        "step": "0",
        "note": "x",
    }
    assert load_file(file).keys() == trained.query_encoder.state_dict().keys()
    backbone = load_backbone(file)
    assert isinstance(backbone, TinyBackbone)
    assert same(backbone, trained.query_encoder)
    assert not backbone.training
    assert sorted(p.name for p in file.parent.iterdir()) == ["b.safetensors"]


def test_from_a_checkpoint_file(trained: PretrainModule, tmp_path: Path) -> None:
    checkpoint = {"state_dict": trained.state_dict(), "global_step": 40, "epoch": 2}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    file = export_backbone(tmp_path / "last.ckpt", tmp_path / "b.safetensors")
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert (metadata["method"], metadata["step"], metadata["epoch"]) == ("video", "40", "2")
    assert same(load_backbone(file), trained.query_encoder)
    assert same(load_backbone(tmp_path / "last.ckpt"), trained.query_encoder)


def test_serves_torchvision_itself(tmp_path: Path) -> None:
    source = TorchvisionResNet(name="resnet18")
    file = export_backbone(source, tmp_path / "b.safetensors")
    theirs = tv.resnet18(weights=None)
    missing, unexpected = theirs.load_state_dict(load_file(file), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    classifier = tv.resnet18(weights=None, num_classes=7)
    fc = classifier.fc.weight.clone()
    load_backbone(file, classifier)
    assert torch.equal(classifier.fc.weight, fc)
    classifier.fc = nn.Identity()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(classifier(x), source.eval()(x), atol=1e-5)


def test_unknown_networks_need_the_network(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    file = export_backbone(WrappedBackbone(net, num_features=4), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"\(net=torch\.nn.*Sequential\(\.\.\.\), .*build it"):
        load_backbone(file)
    again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert same(load_backbone(file, again), net)


def test_a_file_never_names_code_to_run(tmp_path: Path) -> None:
    spec = {"backbone": json.dumps({"_target_": "os.system", "command": "false"})}
    file = export_backbone(nn.Linear(2, 2), tmp_path / "b.safetensors", metadata=spec)
    with pytest.raises(
        UserError, match=r"weights of os\.system\(command='false'\), none of this.*build it"
    ):
        load_backbone(file)


def test_a_network_that_lacks_layers_of_the_file_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    file = export_backbone(net, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"holds 1\.bias and 1 more tensors that this Sequential"):
        load_backbone(file, nn.Sequential(nn.Linear(2, 2)))


def test_tied_and_transposed_weights_are_written(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    net[0].weight.data = net[0].weight.data.T
    file = export_backbone(net, tmp_path / "b.safetensors")
    tensors = load_file(file)
    assert torch.equal(tensors["0.weight"], net[0].weight.detach())
    assert torch.equal(tensors["1.weight"], net[0].weight.detach())


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = export_backbone(nn.Linear(2, 2), tmp_path / "b.safetensors")
    before = file.read_bytes()
    with pytest.raises(UserError, match="cannot write"):
        export_backbone(nn.Linear(2, 2), file / "inside")
    assert file.read_bytes() == before


def test_the_random_network_of_a_file(tmp_path: Path) -> None:
    file = export_backbone(TinyBackbone(width=8), tmp_path / "tiny.safetensors")
    before = torch.get_rng_state()
    first, again = random_backbone(file), random_backbone(file)
    assert torch.equal(before, torch.get_rng_state())
    trained, other = load_backbone(file), random_backbone(file, seed=1)
    weights = [net.state_dict()["stem.weight"] for net in (first, again, trained, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    net = TinyBackbone(width=8)
    facts = {name: name * 3 for name in "hgfedcba"}
    files = [export_backbone(net, tmp_path / f"{i}", metadata=facts).read_bytes() for i in range(8)]
    assert len(set(files)) == 1
