"""Parameter groups by name: which parameters, with which factors, under any schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.schedules import WarmupCosine
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules import ParameterGroup, PretrainModule
from vclr_lightning.modules.parameter_groups import parameter_groups

Make = Callable[..., PretrainModule]


def settings(module: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trained parameter, by name."""
    optimizer = module.configure_optimizers()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(p)]: (g["lr"], g["weight_decay"])
        for g in optimizer.param_groups
        for p in g["params"]
    }
    assert len(found) == sum(len(g["params"]) for g in optimizer.param_groups)
    return found


def test_factors_of_groups_multiply(make_module: Make) -> None:
    module: Any = make_module(
        norm=True,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
        groups={
            "no_decay": ParameterGroup(parameters=["norms", "biases"], weight_decay=0),
            "heads": ParameterGroup(parameters="objectives.*", lr=10),
            "unused": None,
        },
    )
    found = settings(module)
    for name, (lr, decay) in found.items():
        head = name.startswith("objectives.")
        plain = name.endswith(".bias") or ".norm." in name
        assert lr == pytest.approx(1.0 if head else 0.1), name
        assert decay == pytest.approx(0 if plain else 0.01), name
    assert {n for n, p in module.named_parameters() if p.requires_grad} == set(found)
    assert any(".norm." in name for name in found)


def test_layer_wise_decay_by_hand() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query_encoder = nn.Module()
            self.query_encoder.stem = nn.Linear(1, 1)
            self.query_encoder.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
            self.query_encoder.last = nn.Linear(1, 1)
            self.objectives = nn.Linear(1, 1)

    rule = ParameterGroup(parameters="query_encoder.*", layer_decay=0.5)
    module = Module()
    names = {id(p): name for name, p in module.named_parameters()}
    found = {
        names[id(p)]: group["lr_factor"]
        for group in parameter_groups(module, {"decay": rule})
        for p in group["params"]
    }
    expected = {"stem": 0.25, "blocks.0": 0.25, "blocks.1": 0.5, "blocks.2": 1, "last": 1}
    for layer, factor in expected.items():
        assert found[f"query_encoder.{layer}.weight"] == factor
    assert found["objectives.weight"] == 1


def test_every_group_follows_the_schedule(make_module: Make, fit: Any, make_batch: Any) -> None:
    module: Any = make_module(
        backbone=TinyBackbone(width=8, stages=1),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        scheduler=partial(WarmupCosine, warmup_epochs=0, eta_min=0),
        groups={"heads": ParameterGroup(parameters="objectives.*", lr=2)},
    )
    trainer = fit(module, [make_batch(range(4)), make_batch(range(4, 8))])
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert [group["name"] for group in trainer.optimizers[0].param_groups] == ["heads", "default"]
    assert rates == [0, 0]


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"parameters": "ghost.*"}, "^the parameter group mine holds none of the parameters"),
        ({"parameters": "*", "lr": -1}, "lr=-1"),
        ({"parameters": "*", "layer_decay": 0}, "layer_decay=0"),
        ({"parameters": None}, "parameters=None must be a name with wildcards, or a list"),
        ({"parameters": [1]}, r"parameters=\[1\] must be a name with wildcards, or a list"),
    ],
)
def test_what_is_refused(make_module: Make, group: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_module(groups={"mine": ParameterGroup(**group)}).configure_optimizers()


@pytest.mark.parametrize("groups", [["heads"], {"heads": {"parameters": "objectives.*"}}])
def test_what_is_no_group_is_refused(make_module: Make, groups: Any) -> None:
    with pytest.raises(UserError, match=r"optim\.groups.* not"):
        make_module(groups=groups).configure_optimizers()
