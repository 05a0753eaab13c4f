"""A network's class and arguments: recorded whole, rebuilt where the user vouches, no guess."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    Backbone,
    TimmBackbone,
    TinyBackbone,
    TorchvisionResNet,
    TSMResNet,
    WrappedBackbone,
    export_backbone,
    load_backbone,
    load_initial_weights,
    random_backbone,
    register_backbone,
)
from vclr_lightning.models.network_spec import spec_of
from vclr_lightning.models.trusted_networks import build_backbone, trusted_spec, vouched
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import VideoLevel

HERE = __name__


class Tripled(TorchvisionResNet):
    """A ResNet by all names and shapes, which computes something else."""

    def __init__(self, *, factor: float = 3.0, name: str = "resnet18") -> None:
        super().__init__(name=name)
        self.factor = factor

    def forward_map(self, x: Tensor) -> Tensor:
        return self.factor * super().forward_map(x)


class Plain(nn.Module):
    """No Backbone, and nothing that records its arguments."""

    def __init__(self, width: int = 4, stride: int = 1) -> None:
        super().__init__()
        self.num_features, self.clip_dims = width, 2
        self.conv = nn.Conv2d(3, width, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(dim=(2, 3))


class Options(Backbone):
    """All kinds of arguments."""

    def __init__(self, first: Any, *rest: Any, key: Any = 1, **more: Any) -> None:
        super().__init__()


class Bare(nn.Module):
    """No arguments at all."""

    num_features, clip_dims = 3, 2

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vclr_lightning.models.trusted_networks._CLASSES", {})


def metadata(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        return json.loads(opened.metadata()["backbone"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, VALUES, VALUES)
def test_plain_arguments_are_recorded_however_they_are_given(
    first: Any, key: Any, more: Any
) -> None:
    one, other = Options(first, key=key, more=more), Options(more=more, key=key, first=first)
    assert one.spec == other.spec
    assert one.spec == {"_target_": f"{HERE}.Options", "first": first, "key": key, "more": more}
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again.spec == one.spec
    assert json.loads(json.dumps(one.spec)) == one.spec


def test_what_is_no_plain_value_is_said_to_be_unknown() -> None:
    for network in (Options(1, 2), Options(nn.ReLU), Options(1, key=object())):
        assert network.spec["_arguments_"] == "unknown"
    assert spec_of(Plain(width=4))["_arguments_"] == "unknown"
    assert spec_of(Bare()) == {"_target_": f"{HERE}.Bare"}
    inner = WrappedBackbone(Bare(), num_features=3).spec
    assert inner["net"] == {"_target_": f"{HERE}.Bare"}
    assert trusted_spec({"_target_": f"{HERE}.Bare", "_arguments_": "unknown"}) is None


def test_a_subclass_records_its_own_arguments() -> None:
    assert Tripled(factor=2).spec == {
        "_target_": f"{HERE}.Tripled",
        "factor": 2,
        "name": "resnet18",
    }


def test_checkpoints_and_exports_rebuild_a_registered_class(tmp_path: Path) -> None:
    module = PretrainModule(
        backbone=Tripled(factor=2.0),
        objectives={"video": partial(VideoLevel, embedding_dim=8, queue_size=16)},
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "global_step": 1}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    exported = export_backbone(module, tmp_path / "a.safetensors")
    other = export_backbone(tmp_path / "last.ckpt", tmp_path / "b.safetensors")
    x = torch.rand(2, 3, 32, 32)
    expected = module.query_encoder.eval()(x)
    for file in (tmp_path / "last.ckpt", exported, other):
        with pytest.raises(UserError, match=r"Tripled\(factor=2\.0, .*register_backbone"):
            load_backbone(file)
        with pytest.raises(UserError, match="TorchvisionResNet would compute something else"):
            load_backbone(file, TorchvisionResNet(name="resnet18"))
    register_backbone(Tripled)
    for file in (tmp_path / "last.ckpt", exported, other):
        backbone = load_backbone(file)
        assert (type(backbone), backbone.factor) == (Tripled, 2.0)
        assert torch.equal(backbone(x), expected)
        assert isinstance(random_backbone(file), Tripled)


def test_an_export_of_an_export_keeps_everything(tmp_path: Path) -> None:
    register_backbone(Tripled)
    network = Tripled(factor=5.0)
    network.pixel_mean, network.pixel_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    one = export_backbone(network, tmp_path / "one.safetensors")
    again = export_backbone(load_backbone(one), tmp_path / "again.safetensors")
    assert metadata(one) == metadata(again)
    assert load_backbone(again).pixel_mean == (0.5, 0.5, 0.5)


def test_other_arguments_than_those_of_the_training_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = export_backbone(Tripled(factor=5.0), tmp_path / "b.safetensors")
    load_backbone(file, Tripled(factor=5.0))
    assert not caplog.messages
    load_backbone(file, Tripled(factor=4.0))
    assert "and this network has factor=4.0" in caplog.messages[-1]


def test_networks_of_this_package_are_not_taken_for_one_another(tmp_path: Path) -> None:
    shifted = export_backbone(TSMResNet(name="resnet18"), tmp_path / "tsm.safetensors")
    with pytest.raises(UserError, match=r"TorchvisionResNet would compute .*backbone=as_init"):
        load_backbone(shifted, TorchvisionResNet(name="resnet18"))
    plain = export_backbone(TorchvisionResNet(name="resnet18"), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="TSMResNet would compute something else"):
        load_backbone(plain, TSMResNet(name="resnet18"))
    assert isinstance(load_backbone(plain, TimmBackbone(name="resnet18")), TimmBackbone)


def test_unknown_arguments_are_asked_for(tmp_path: Path) -> None:
    register_backbone(Plain)
    file = export_backbone(Plain(width=8, stride=2), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"Plain\(\.\.\.\), whose arguments it does not record"):
        load_backbone(file)
    assert load_backbone(file, Plain(width=8, stride=2)).num_features == 8


def test_another_s_weights_may_still_begin_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = export_backbone(Tripled(), tmp_path / "b.safetensors")
    load_initial_weights(TorchvisionResNet(name="resnet18"), file)
    assert "which need not compute the same" in caplog.text


def test_a_file_without_identity_is_recognised_once_and_visibly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(Tripled().state_dict(), tmp_path / "foreign.pth")
    for _ in range(2):
        assert type(load_backbone(tmp_path / "foreign.pth")) is TorchvisionResNet
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "does not say which network its weights are of" in record.message
    assert "TorchvisionResNet(name='resnet18'" in record.message
    caplog.clear()
    load_backbone(tmp_path / "foreign.pth", Tripled())
    load_backbone(export_backbone(TinyBackbone(width=4), tmp_path / "own.safetensors"))
    assert not caplog.records


@pytest.mark.parametrize(
    "spec",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "surely_nothing.Net"},
        {"_target_": f"{HERE}.Bare"},
        {"_target_": "vclr_lightning.models.WrappedBackbone", "net": {"_target_": "os.getcwd"}},
        {"_target_": "mine.Net", "norm": {"_target_": "os.system", "_partial_": True}},
        {"_target_": "mine.Net", "sizes": [{"_target_": "os.system"}]},
        {"_target_": "mine.Net", "width": "${oc.env:HOME}"},
        {"_target_": "mine.Net", "inner": {"_args_": [1]}},
        {"_target_": "mine.build", "width": 9},
        {"_target_": "mine.Tool"},
    ],
)
def test_a_file_builds_nothing_that_the_user_did_not_name(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self, **options): super().__init__()\n"
        "class Tool: pass\n"
        "def build(width): return nn.Conv2d(3, width, 1)\n"
    )
    (tmp_path / "surely_nothing.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = [{"_target_": "mine.Net"}, {"a": [{"_target_": "mine.build", "width": 4}]}]
    with vouched([*own, {"_target_": "mine.Tool", "size": 1}]):
        assert trusted_spec(spec) is None
        for fine in (
            {"_target_": "mine.Net", "width": [1, {"deep": 2.5}]},
            {"_target_": "vclr_lightning.models.WrappedBackbone", "net": {"_target_": "mine.Net"}},
            {"_target_": "mine.build", "width": 4},
        ):
            assert trusted_spec(fine) == fine
    assert trusted_spec({"_target_": "mine.Net"}) is None
    assert "surely_nothing" not in sys.modules
    sys.modules.pop("mine", None)


def test_a_function_s_network_is_one_of_its_class(tmp_path: Path) -> None:
    node = {"_target_": "torchvision.models.resnet18", "num_classes": 4}
    with vouched([node]):
        network = build_backbone(node)
        file = export_backbone(network, tmp_path / "b.safetensors")
        assert metadata(file) == {**node, "_class_": "torchvision.models.resnet.ResNet"}
        assert load_backbone(file).fc.out_features == 4
    assert load_backbone(file, build_backbone(node)).fc.out_features == 4
    with pytest.raises(UserError, match="TinyBackbone would compute something else"):
        load_backbone(file, TinyBackbone())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere.Net", r"nowhere\.Net cannot be imported \(ModuleNotFoundError.*PYTHONPATH"),
        (f"{HERE}.Plain", r"Plain\(widht=3\) cannot be built: TypeError"),
    ],
)
def test_a_class_that_cannot_be_built_is_told(target: str, says: str) -> None:
    spec = {"_target_": target, "widht": 3}
    with vouched([{"_target_": target}]), pytest.raises(UserError, match=says):
        build_backbone(trusted_spec(spec) or {})
