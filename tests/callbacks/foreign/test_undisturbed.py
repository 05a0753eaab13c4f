"""Whatever looks at a training leaves it as it is: weights, optimizers, random numbers, modes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_modules import MODULES, make_loader, make_trainer

from vclr_lightning.callbacks import (
    CollapseMonitor,
    EmbeddingProjector,
    GradientConflict,
    OnlineAttentiveProbe,
    OnlineKNN,
    OnlineLinearProbe,
    QueueMonitor,
    TimeProbe,
)
from vclr_lightning.core.lightning import LightningModule

pytestmark = pytest.mark.filterwarnings("ignore:.*module.* in eval mode at the start.*")


def first_tensor(batch: Any) -> torch.Tensor:
    return (
        batch["image"]
        if isinstance(batch, dict)
        else batch[0]
        if isinstance(batch, list)
        else batch
    )


def brightness(batch: Any) -> torch.Tensor:
    """The class, which two of the three batches do not hold."""
    return first_tensor(batch).mean(dim=(1, 2, 3)).round().long().clamp(0, 2)


def held_out(trainer: Any) -> Any:
    return make_loader("plain", "classifier")


def encoded(module: LightningModule, batch: Any) -> torch.Tensor:
    torch.rand(2)  # what a function draws disturbs nothing
    return module.encoder(first_tensor(batch))


def as_clips(batch: Any) -> torch.Tensor:
    return first_tensor(batch)[:, :, :, None]  # each row of a picture as a frame


def two_losses(module: LightningModule, batch: Any) -> dict[str, torch.Tensor]:
    features = module.encoder(first_tensor(batch))
    return {"small": features.square().mean(), "even": features.var(dim=0).mean()}


class Projecting(EmbeddingProjector):
    """Logs that it drew."""

    def _show(self, trainer: Any, name: str, *args: Any) -> None:
        super()._show(trainer, name, *args)
        trainer.lightning_module.log("drawn", 1.0)


WATCHERS: dict[str, Callable[[], Any]] = {
    "collapse": lambda: CollapseMonitor(every_n_steps=2, samples=10, patience=1),
    "collapse of layers": lambda: CollapseMonitor(
        features={"map": "encoder.1", "own": encoded}, every_n_steps=3
    ),
    "gradients": lambda: GradientConflict(losses=two_losses, every_n_steps=2),
    "queue": lambda: QueueMonitor(
        queues=lambda module: module.encoder[0].weight.flatten(1), every_n_steps=2
    ),
    "time": lambda: TimeProbe(
        encode=lambda clips: torch.rand(len(clips), 2), clips=as_clips, held_out=held_out
    ),
    "projector": lambda: Projecting(),
    "k-NN": lambda: OnlineKNN(labels=brightness, held_out=held_out, forward=encoded),
    "linear": lambda: OnlineLinearProbe(labels=brightness, num_classes=3),
    "attentive": lambda: OnlineAttentiveProbe(
        features="encoder.2",
        labels=brightness,
        num_classes=3,
        held_out=held_out,
        forward=encoded,
    ),
}


def trained(
    kind: str, *callbacks: Any
) -> tuple[LightningModule, list[Any], dict[str, torch.Tensor]]:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    module = MODULES[kind]()
    module.encoder[1].eval()  # on purpose
    trainer = make_trainer(*callbacks)
    trainer.fit(module, make_loader("plain", kind))
    state = [optimizer.state_dict() for optimizer in trainer.optimizers]
    facts = [random.random(), np.random.rand(), torch.rand(2).tolist()]
    facts += [layer.training for layer in module.modules()]
    facts += [len(layer._forward_hooks) for layer in module.modules()]
    facts += [p.grad is None for p in module.parameters()]
    return module, [facts, state], trainer.callback_metrics


@cache
def alone(kind: str) -> Any:
    return trained(kind)


@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize("kind", MODULES)
def test_training_goes_on_as_without_it(
    kind: str, watcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module, facts, metrics = trained(kind, WATCHERS[watcher]())
    expected, its_facts, its_metrics = alone(kind)
    for (name, one), other in zip(
        module.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    torch.testing.assert_close(facts, its_facts, rtol=0, atol=0)
    for name, value in its_metrics.items():
        assert metrics[name] == value
    assert set(metrics) - set(its_metrics)  # and it measured something


@pytest.mark.parametrize("kind", ["collapse", "attentive", "time", "queue"])
def test_processes_that_are_spawned_get_them(kind: str) -> None:
    made: Any = {
        "collapse": CollapseMonitor(features=["encoder.0", "encoder"]),
        "attentive": OnlineAttentiveProbe(features="encoder.2", num_classes=3),
        "time": TimeProbe(),
        "queue": QueueMonitor(queues="queue", dim=1),
    }[kind]
    copied = pickle.loads(pickle.dumps(made))
    assert copied.state_key == made.state_key
