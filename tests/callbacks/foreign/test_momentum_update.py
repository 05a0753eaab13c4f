"""Modules that follow others, against averages computed step by step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_modules import Adversarial, Classifier, make_loader, make_trainer

from vclr_lightning.callbacks import MomentumUpdate
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback
from vclr_lightning.core.momentum import CosineMomentum


class Teacher(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.momentum_encoder = copy.deepcopy(self.encoder)
        torch.nn.init.ones_(self.momentum_encoder[0].weight)


class Following(Callback):
    """Averages the encoder's weights by itself, after each optimizer step."""

    def __init__(self, momentum: Any) -> None:
        self.momentum, self.own, self.steps = momentum, None, 0

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if self.own is None:
            self.own = [p.detach().clone() for p in module.encoder.parameters()]

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.steps:
            return
        m = self.momentum(self.steps)
        for own, p in zip(self.own, module.encoder.parameters(), strict=True):
            own.copy_(m * own + (1 - m) * p.detach())
        self.steps = trainer.global_step


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("schedule", [False, True])
def test_averages(schedule: bool, accumulate: int) -> None:
    total = 10 if accumulate == 1 else 6
    momentum = CosineMomentum(start=0.5, end=1.0) if schedule else 0.75
    following = Following(lambda step: CosineMomentum(start=0.5)(step, total) if schedule else 0.75)
    update = MomentumUpdate(momentum=momentum)
    trainer = make_trainer(following, update, accumulate_grad_batches=accumulate)
    module = Teacher()
    trainer.fit(module, make_loader("plain", "classifier"))
    for own, p in zip(following.own, module.momentum_encoder.parameters(), strict=True):
        torch.testing.assert_close(own, p)
        assert not p.requires_grad
    assert update.updates == following.steps == total
    expected = 1.0 if schedule else 0.75
    assert trainer.callback_metrics["momentum/value"] == pytest.approx(expected)
    assert not module.momentum_encoder[1].running_mean.equal(module.encoder[1].running_mean)
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_the_host_trains_as_without_it() -> None:
    states = []
    for callbacks in ([], [MomentumUpdate(buffers=True)]):
        torch.manual_seed(0)
        module = Teacher()
        make_trainer(*callbacks).fit(module, make_loader("plain", "classifier"))
        states.append(module.encoder.state_dict() | module.head.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert module.momentum_encoder[1].running_mean.equal(module.encoder[1].running_mean)


def test_one_of_several_optimizers() -> None:
    module = Adversarial()
    module.slow = copy.deepcopy(module.critic)
    update = MomentumUpdate(
        pairs=lambda module: [(module.critic, module.slow)], optimizer=1, momentum=0.0
    )
    make_trainer(update).fit(module, make_loader("plain", "adversarial"))
    assert update.updates == 10
    assert module.slow.weight.equal(module.critic.weight)


def test_a_schedule_continues(tmp_path: Path, fit: Any, make_module: Any) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 9:
                raise RuntimeError("killed")

    weights = []
    for stopped in (False, True):

        def run(*callbacks: Any, folder: Path = tmp_path / str(stopped)) -> Any:
            torch.manual_seed(0)
            module = make_module()
            module.slow = copy.deepcopy(module.net)
            update = MomentumUpdate(pairs={"net": "slow"}, momentum=CosineMomentum(start=0.2))
            return fit(folder, update, *callbacks, module=module)[0]

        if stopped:
            with pytest.raises(RuntimeError, match="killed"):
                run(Stop())
        weights.append(run().slow.state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"momentum": 2}, "momentum=2 of the update must be between 0 and 1"),
        ({}, "Classifier has no pair of modules with usual names"),
        ({"pairs": {"encoder": "teacher"}}, "has no layer 'teacher'"),
        ({"pairs": {"encoder": "head"}}, "Linear cannot follow Sequential"),
        ({"pairs": {"head": "head"}, "optimizer": 1}, "optimizer=1 .* none of the module's 1"),
    ],
)
def test_mistakes(options: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_trainer(MomentumUpdate(**options)).fit(
            Classifier(), make_loader("plain", "classifier")
        )
