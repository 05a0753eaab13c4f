"""Gradients of several losses: their norms and cosines, and that the step's own do not change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from foreign_modules import Classifier, make_loader, make_trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vclr_lightning.callbacks import GradientConflict
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback


class Brightness(nn.Module):
    """A loss that is a module, with a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        return (self.head(features)[:, 0] - images.mean(dim=(1, 2, 3))).square().mean()


class TwoLosses(Classifier):
    """Its training step returns the losses beside their sum."""

    def __init__(self, *, returned: str = "losses", detached: bool = False) -> None:
        super().__init__()
        self.encoder[5].p = 0.0
        self.criterion = nn.CrossEntropyLoss()
        self.brightness = Brightness()
        self.returned, self.detached = returned, detached

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        losses = self.both(batch)
        total = sum(losses.values())
        if self.detached:
            losses = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": total, self.returned: losses}

    def both(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.encoder(batch["image"])
        return {
            "criterion": self.criterion(self.head(features), batch["label"]),
            "brightness": self.brightness(features, batch["image"]),
        }


class Expecting(Callback):
    """Computes, before each step, what the gradients are, by two backward passes of its own."""

    def __init__(self, trunk: str) -> None:
        self.trunk = trunk
        self.rows: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        module, images = copy.deepcopy(module), batch["image"]
        features = module.encoder(images)
        of_classes = cross_entropy(module.head(features), batch["label"])
        of_colour = module.brightness(features, images)
        self.rows = []
        for loss in (of_classes, of_colour):
            module.zero_grad()
            loss.backward(retain_graph=True)
            weights = module.get_submodule(self.trunk).parameters()
            self.rows.append(torch.cat([w.grad.flatten() for w in weights]))


SOURCES: dict[str, Any] = {
    "of the step's outputs": {"losses": "losses"},
    "by default": {},
    "submodules": {"losses": ["criterion", "brightness"]},
    "renamed": {"losses": {"criterion": "criterion", "brightness": "brightness"}},
    "a function": {"losses": lambda module, batch: module.both(batch)},
    "of a trunk": {"trunk": "encoder.0"},
    "of a function's weights": {"trunk": lambda module: module.encoder.parameters()},
}


@pytest.mark.parametrize("source", SOURCES)
def test_norms_and_cosines(source: str) -> None:
    torch.manual_seed(0)
    options = SOURCES[source]
    expecting = Expecting("encoder.0" if source == "of a trunk" else "encoder")
    monitor = GradientConflict(**options, weights={"brightness": 3.0}, every_n_steps=5)
    trainer = make_trainer(expecting, monitor)
    module = TwoLosses()
    trainer.fit(module, make_loader("plain", "classifier"))
    found = trainer.callback_metrics
    one, other = expecting.rows
    assert found["gradients/norm/criterion"] == pytest.approx(float(one.norm()), rel=1e-4)
    assert found["gradients/norm/brightness"] == pytest.approx(3 * float(other.norm()), rel=1e-4)
    cosine = float(one @ other / one.norm() / other.norm())
    assert found["gradients/cosine/criterion-brightness"] == pytest.approx(cosine, abs=1e-5)
    assert "training_step" not in module.__dict__


@pytest.mark.parametrize("losses", ["losses", ["criterion", "brightness"]])
def test_training_goes_on_as_without_it(losses: Any) -> None:
    weights = []
    for callbacks in ([], [GradientConflict(losses=losses, every_n_steps=1)]):
        torch.manual_seed(0)
        module = TwoLosses()
        make_trainer(*callbacks).fit(module, make_loader("plain", "classifier"))
        weights.append(module.state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "of_module", "says"),
    [
        ({"losses": "parts"}, {}, "parts gives none before the backward pass; name submodules"),
        ({}, {"detached": True}, "the loss criterion of losses is detached"),
        ({"losses": ["criterion"]}, {}, "criterion gives criterion before the backward pass"),
        ({"losses": "heads.*"}, {}, r"no submodules heads\.\* that return losses"),
        ({"losses": ["criterium"]}, {}, "no layer 'criterium'; near it are criterion"),
        ({"trunk": "trunk"}, {}, "no layer 'trunk'"),
        ({"every_n_steps": 0}, {}, "every_n_steps=0"),
    ],
)
def test_what_is_missing_is_said(options: Any, of_module: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_trainer(GradientConflict(**{"every_n_steps": 1, **options})).fit(
            TwoLosses(**of_module), make_loader("plain", "classifier")
        )
