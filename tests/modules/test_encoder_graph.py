"""Encoders by name: who is built, who follows whom and how, and which layers are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import CosineMomentum
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.models import TorchvisionResNet
from vclr_lightning.modules import MomentumEncoder, PretrainModule
from vclr_lightning.objectives import Objective

Make = Callable[..., PretrainModule]
MakeBatch = Callable[..., Batch]


class Distil(Objective):
    """The features of one view predict those of another, each by an encoder of choice."""

    def __init__(self, *, num_features: int, own: str = "anchor", other: str = "key:positive"):
        super().__init__()
        self.own, self.other = Request.of(own), Request.of(other)
        self.head = nn.Linear(num_features, num_features)

    def requests(self) -> Mapping[str, Request]:
        return {"own": self.own, "other": self.other}

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        own = normalize(self.head(features["own"].mean(1)), dim=1)
        other = normalize(features["other"].mean(1), dim=1)
        return ObjectiveOutput((own - other).square().sum(1).mean())


def distil(**views: str) -> Callable[..., Distil]:
    return lambda *, num_features: Distil(num_features=num_features, **views)


def train(module: PretrainModule, make_batch: MakeBatch, steps: int = 1) -> None:
    optimizer = module.configure_optimizers()
    for i in range(steps):
        module.training_step(make_batch(range(4 * i, 4 * i + 4)), i)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_several_momentum_encoders_each_with_its_momentum(
    make_module: Make, make_batch: MakeBatch
) -> None:
    module: Any = make_module(
        objectives={"near": distil(other="fast:positive"), "far": distil(other="slow:positive")},
        encoders={
            "fast": MomentumEncoder(momentum=0.5),
            "slow": MomentumEncoder(momentum=0.9),
            "spare": MomentumEncoder(),
        },
    )
    assert list(module.encoders) == ["query", "fast", "slow"]  # nobody reads the spare one
    before = copy.deepcopy(module.query_encoder.conv.weight.data)
    train(module, make_batch)
    now = module.query_encoder.conv.weight
    assert not torch.equal(before, now)
    for name, m in (("fast", 0.5), ("slow", 0.9)):
        weight = module.encoders[name].conv.weight
        torch.testing.assert_close(weight, m * before + (1 - m) * now)
        assert not weight.requires_grad


def test_two_trained_encoders_and_one_that_follows_the_second(
    make_module: Make, make_batch: MakeBatch, make_network: Callable[..., nn.Module]
) -> None:
    second = make_network()
    module: Any = make_module(
        objectives={"both": distil(other="small:positive"), "ema": distil(other="lag:anchor")},
        encoders={"small": second, "lag": MomentumEncoder(follows="small", momentum=0)},
    )
    assert module.small_encoder is second
    start = copy.deepcopy(second.state_dict())
    train(module, make_batch)
    assert not torch.equal(start["conv.weight"], second.state_dict()["conv.weight"])
    assert torch.equal(module.lag_encoder.conv.weight, module.small_encoder.conv.weight)
    names = {name.partition(".")[0] for name in module.state_dict()}
    assert names == {"objectives", "query_encoder", "small_encoder", "lag_encoder"}


def test_momentum_by_schedule(make_module: Make, make_batch: MakeBatch, fit: Any) -> None:
    asked: list[tuple[int, int]] = []

    def schedule(step: int, total_steps: int) -> float:
        asked.append((step, total_steps))
        return CosineMomentum(start=0.0, end=1.0)(step, total_steps)

    module: Any = make_module(objectives={"a": distil()}, momentum=schedule)
    fit(module, [make_batch(range(4)), make_batch(range(4, 8))], max_epochs=2)
    assert asked == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_the_cosine_of_byol() -> None:
    values = [CosineMomentum(start=0.99)(step, 101) for step in range(101)]
    assert values[0] == pytest.approx(0.99)
    assert values[50] == pytest.approx(0.995)
    assert values[100] == 1
    assert values == sorted(values)
    assert CosineMomentum()(7, 1) == 1  # past the end


class Read(Objective):
    """Keeps what it is given."""

    asked: Mapping[str, Request] = {}

    def __init__(self, *, num_features: int) -> None:
        super().__init__()
        self.given: Mapping[str, Tensor] = {}

    def requests(self) -> Mapping[str, Request]:
        return self.asked

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        self.given = features
        return ObjectiveOutput(sum(x.float().square().mean() for x in features.values()))  # type: ignore[arg-type]


def reading(**asked: Request) -> type[Read]:
    return type("Reading", (Read,), {"asked": asked})


def test_layers_are_read_before_and_after_their_last_relu(
    make_module: Make, make_batch: MakeBatch
) -> None:
    torch.manual_seed(0)
    network = TorchvisionResNet(name="resnet18", small_stem=True).double()
    asked = {
        "pooled": Request.of("anchor"),
        "layer": Request.of("anchor@layer3"),
        "map": Request.of("anchor@layer4", pooled=False),
        "signed": Request.of("anchor@layer4.1.relu:input", pooled=False),
    }
    module: Any = make_module(
        backbone=network, objectives={"read": reading(**asked)}, encoders={}, mean=[0, 0, 0]
    ).double()
    batch = make_batch(range(2))
    batch["views"]["anchor"] = torch.randint(0, 256, (2, 3, 3, 1, 32, 32), dtype=torch.uint8)
    state = copy.deepcopy(network.state_dict())
    module.training_step(batch, 0)["loss"].backward()
    given = module.objectives["read"].given

    network.load_state_dict(state)  # BatchNorm counted that pass
    x = batch["views"]["anchor"].flatten(0, 1)[:, :, 0].double() / 255
    x = x / torch.tensor(module.pixels.std, dtype=torch.float64).view(3, 1, 1)
    with torch.no_grad():
        y = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        layer3 = network.layer3(network.layer2(network.layer1(y)))
        first, last = network.layer4
        z = first(layer3)
        signed = last.bn2(last.conv2(last.relu(last.bn1(last.conv1(z))))) + z
        layer4 = signed.clamp(min=0)
    close = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(given["layer"].flatten(0, 1), layer3.mean((2, 3)), **close)
    torch.testing.assert_close(given["map"].flatten(0, 1), layer4, **close)
    torch.testing.assert_close(given["signed"].flatten(0, 1), signed, **close)
    torch.testing.assert_close(given["pooled"].flatten(0, 1), layer4.mean((2, 3)), **close)
    assert (signed < 0).any()
    assert all(x.requires_grad for x in given.values())


def test_a_request_for_a_layer_changes_no_pooled_feature(
    make_module: Make, make_batch: MakeBatch
) -> None:
    pooled = Request.of("positive", encoder="key")
    layer = Request.of("key:positive@conv", pooled=False)
    seen = []
    for asked in ({"pooled": pooled}, {"pooled": pooled, "layer": layer}):
        module: Any = make_module(norm=True, objectives={"a": reading(**asked), "b": distil()})
        module.training_step(make_batch(range(4)), 0)
        seen.append(module.objectives["a"].given["pooled"])
        assert module.key_encoder.calls == [3] * 4  # four groups of one video
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    ("reference", "options", "said"),
    [
        ("teacher:anchor", {}, "read the encoder teacher, but the encoders are query, key; add it"),
        ("key:anchor", {"encoders": {}}, "read the encoder key, but the encoders are query; add"),
        (
            "key:anchor",
            {"encoders": {"key": MomentumEncoder(follows="other")}},
            "key follows 'other', which is no trained encoder; set follows to query",
        ),
        (
            "key:anchor",
            {"encoders": {"key": MomentumEncoder(follows="key")}},
            "key follows 'key', which is no trained encoder",
        ),
        ("anchor", {"encoders": {"query": MomentumEncoder()}}, "can't be named 'query'"),
        ("anchor", {"encoders": {"a.b": MomentumEncoder()}}, "can't be named 'a.b'"),
        ("anchor", {"encoders": {"key": 3}}, "encoders.key is 3, not an encoder; give it a _targ"),
        ("anchor", {"encoders": {"key": None}}, "encoders.key is null, not an encoder"),
        ("anchor", {"encoders": ["key"]}, "encoders must be a mapping from names to encoders"),
        (
            "anchor",
            {"encoders": {"key": partial(MomentumEncoder)}},
            "encoders.key is of type partial, not an encoder; leave out its _partial_",
        ),
        (
            "anchor@layer9",
            {},
            "objectives.a reads @layer9: Network has no layer 'layer9'; it has conv",
        ),
        ("anchor@conv", {"compile": True}, "compiled network's layers and maps cannot"),
        ("anchor[x1", {}, "describes no view; write VIEW, "),
        ("", {}, "describes no view"),
    ],
)
def test_what_does_not_fit_is_refused(
    make_module: Make, reference: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make_module(objectives={"a": distil(own=reference, other="anchor")}, **options)


def test_a_schedule_out_of_range_is_refused(make_module: Make, make_batch: MakeBatch) -> None:
    module = make_module(objectives={"a": distil()}, momentum=lambda step, total_steps: 1.5)
    with pytest.raises(UserError, match=r"momentum schedule returns 1.5 in step 0"):
        train(module, make_batch)


def test_heads_that_follow_need_a_momentum_encoder(make_module: Make) -> None:
    class Heads(Distil):
        def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
            return [(self.head, copy.deepcopy(self.head))]

    def build(*, num_features: int) -> Heads:
        return Heads(num_features=num_features, other="positive")

    with pytest.raises(UserError, match="objective a has momentum heads, but reads no momentum"):
        make_module(objectives={"a": build})


def test_layers_that_cannot_be_read(make_module: Make, make_batch: MakeBatch) -> None:
    class Overwriting(nn.Module):
        num_features, clip_dims = 4, 2

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.spare = nn.Conv2d(3, 4, 3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mul(1).relu_().mean((2, 3))

    class InPlace(Overwriting):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).sigmoid_().mean((2, 3))

    for backbone, layer, said in (
        (Overwriting(), "spare", "the layer spare is not called in Overwriting"),
        (InPlace(), "conv", "output of layer conv is overwritten by a later layer"),
    ):
        asked = reading(a=Request.of(f"anchor@{layer}"))
        module = make_module(backbone=backbone, objectives={"a": asked}, encoders={})
        with pytest.raises(UserError, match=said):
            module.training_step(make_batch(range(4)), 0)
