"""The learning rate of every iteration against the reference figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.schedules import EpochCosine, RampedCosine, StepDecay, WarmupCosine

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
    # A warm-up in steps is the same for epochs of any length.
    by_steps = [
        WarmupCosine(optimizer(1.0), steps_per_epoch=n, epochs=60 / n, warmup_steps=10)
        for n in (5, 4)
    ]
    by_epochs = WarmupCosine(optimizer(1.0), steps_per_epoch=5, epochs=12, warmup_epochs=2)
    for step in range(61):
        assert {one.rate(step, 1.0) for one in by_steps} == {by_epochs.rate(step, 1.0)}
    # Shorter than its warm-up: it ends on the way up.
    assert rate(3, warmup=9, epochs=4) < 1


@pytest.mark.parametrize(
    "wrong",
    [{"steps_per_epoch": 0}, {"warmup_epochs": -1}, {"multiplier": 0.5}, {"eta_min": -1.0}],
)
def test_impossible_schedules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        WarmupCosine(optimizer(1.0), **({"steps_per_epoch": 5, "epochs": 2.0} | wrong))


def test_cosine_by_epoch_is_constant_within_each() -> None:
    """MoCo v2: 200 epochs from 0.03; the last one runs at 1.8e-6, not at 0."""
    schedule = EpochCosine(optimizer(0.03), steps_per_epoch=5, epochs=200)
    rates = [schedule.rate(step, 0.03) for step in range(1000)]
    for epoch in (0, 1, 77, 199):
        expected = 0.03 * 0.5 * (1.0 + np.cos(np.pi * epoch / 200))
        assert rates[5 * epoch : 5 * epoch + 5] == [pytest.approx(expected)] * 5
    assert rates[0] == 0.03
    assert rates[-1] == pytest.approx(1.85e-6, rel=1e-2)


def test_the_ramp_ends_on_the_cosine_below_its_peak() -> None:
    """CVRL on K600: 71488 steps from 0.32, of which 1787 rise to 0.31951."""
    steps, warmup = 71488, 1787
    schedule = RampedCosine(optimizer(0.32), steps_per_epoch=1, epochs=steps, warmup_epochs=warmup)
    rates = np.array([schedule.rate(step, 0.32) for step in range(steps + 1)])
    cosine = 0.32 * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 2
    np.testing.assert_allclose(rates[warmup:], cosine[warmup:], atol=1e-12)
    np.testing.assert_allclose(rates[:warmup], np.arange(warmup) / warmup * cosine[warmup])
    assert rates.max() == pytest.approx(0.31951, abs=5e-6)
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    # A run that is shorter than its ramp ends on the way up.
    short = RampedCosine(optimizer(1.0), steps_per_epoch=10, epochs=2, warmup_epochs=5)
    assert [short.rate(step, 1.0) for step in range(20)] == [step / 50 for step in range(20)]


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_the_warm_up_in_steps_multiplies_what_follows(kind: str) -> None:
    """VINCE: the rate times i / 500 in steps i = 1 to 500."""
    shape: dict[str, Any] = {"steps_per_epoch": 100, "epochs": 20}
    if kind == "step":
        decay = {"milestones": [3, 12], "gamma": 0.1}
        plain: Any = StepDecay(optimizer(0.03), **shape, **decay)
        warmed: Any = StepDecay(optimizer(0.03), **shape, **decay, warmup_steps=500)
    else:
        plain = EpochCosine(optimizer(0.03), **shape)
        warmed = EpochCosine(optimizer(0.03), **shape, warmup_steps=500)
    for step in range(2000):
        share = (step + 1) / 500 if step < 500 else 1.0
        assert warmed.rate(step, 0.03) == pytest.approx(plain.rate(step, 0.03) * share)
    assert warmed.rate(0, 0.03) == pytest.approx(0.03 / 500)
    assert warmed.rate(1999, 0.03) < 0.03 * 0.02


def test_step_decay_falls_at_its_milestones() -> None:
    schedule = StepDecay(optimizer(1.0), steps_per_epoch=10, epochs=5, milestones=[1.5, 4])
    rates = [schedule.rate(step, 1.0) for step in range(50)]
    assert rates == [1.0] * 15 + [pytest.approx(0.1)] * 25 + [pytest.approx(0.01)] * 10


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EpochCosine, {"steps_per_epoch": 0}),
        (EpochCosine, {"warmup_steps": -1}),
        (RampedCosine, {"warmup_epochs": -1}),
        (StepDecay, {"milestones": [3], "warmup_steps": -1}),
        (StepDecay, {"milestones": [-3]}),
    ],
)
def test_impossible_lengths_are_refused(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=list(wrong)[-1]):
        kind(optimizer(1.0), **({"steps_per_epoch": 5, "epochs": 2.0} | wrong))
