"""The learning rate of every iteration against the reference figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.schedules import WarmupCosine

FIGURES = json.loads((Path(__file__).parents[1] / "reference" / "g3_lr.json").read_text())


def optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def schedule(figures: dict[str, Any]) -> tuple[torch.optim.Optimizer, WarmupCosine]:
    sgd = optimizer(figures["base_lr"])
    return sgd, WarmupCosine(
        sgd,
        steps_per_epoch=figures["n_iter_per_epoch"],
        epochs=figures["epochs"],
        warmup_epochs=figures["warmup_epochs"],
        multiplier=figures["warmup_multiplier"],
        eta_min=figures["eta_min"],
    )


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_iteration_uses_the_reference_rate(name: str) -> None:
    figures = FIGURES[name]
    sgd, scheduler = schedule(figures)
    for expected in [*figures["lr_per_iteration"], figures["lr_after_last_step"]]:
        assert sgd.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)
        assert scheduler.get_last_lr() == [sgd.param_groups[0]["lr"]]
        sgd.step()
        scheduler.step()


def test_resumes_at_its_position_with_the_shape_of_the_run() -> None:
    figures = FIGURES["main"]
    sgd, scheduler = schedule(figures)
    for _ in range(73):
        sgd.step()
        scheduler.step()
    resumed_sgd, resumed = schedule(figures)
    resumed.load_state_dict(scheduler.state_dict())
    resumed_sgd.load_state_dict(sgd.state_dict())
    resumed_sgd.step()
    resumed.step()
    expected = figures["lr_per_iteration"][74]
    assert resumed_sgd.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)
    assert all(isinstance(value, int) for value in scheduler.state_dict().values())


def test_groups_keep_their_proportions_in_the_warm_up() -> None:
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    sgd = torch.optim.SGD([{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:]}], lr=1)
    WarmupCosine(sgd, steps_per_epoch=4, epochs=10)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.005, 0.01])


def test_edges() -> None:
    def rate(step: int, *, warmup: int, epochs: int) -> float:
        sgd = optimizer(1.0)
        schedule = WarmupCosine(sgd, steps_per_epoch=1, epochs=epochs, warmup_epochs=warmup)
        return schedule.rate(step, 1.0)

    assert rate(0, warmup=0, epochs=10) == 1
    assert rate(99, warmup=2, epochs=10) == pytest.approx(1e-6)
    # Shorter than its warm-up: it ends on the way up.
    assert rate(3, warmup=9, epochs=4) < 1


@pytest.mark.parametrize(
    "wrong",
    [{"steps_per_epoch": 0}, {"warmup_epochs": -1}, {"multiplier": 0.5}, {"eta_min": -1.0}],
)
def test_impossible_schedules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        WarmupCosine(optimizer(1.0), **({"steps_per_epoch": 5, "epochs": 2.0} | wrong))
