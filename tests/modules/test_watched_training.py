"""Callbacks for any module, on VCLR's own training with its four losses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from vclr_lightning.callbacks import (
    CollapseMonitor,
    GradientConflict,
    OnlineAttentiveProbe,
    OnlineKNN,
    OnlineLinearProbe,
)
from vclr_lightning.core.lightning import Callback

NAMES = ("inter", "intra", "video", "order")


def test_training_goes_on_as_without_them(make_module: Any, make_batch: Any, fit: Any) -> None:
    batches = [make_batch(range(4 * i, 4 * i + 4)) for i in range(4)]
    classes: dict[str, Any] = {"views": "inside", "labels": lambda b: b["video_id"] % 3}
    watchers = [
        CollapseMonitor(views="inside", every_n_steps=2),
        GradientConflict(every_n_steps=2, trunk="query_encoder"),
        OnlineKNN(**classes),
        OnlineLinearProbe(num_classes=3, **classes),
        OnlineAttentiveProbe(features="query_encoder.conv", num_classes=3, **classes),
    ]
    states = []
    for callbacks in ([], watchers):
        module = make_module(norm=True)
        trainer = fit(module, batches, *callbacks)
        states.append(copy.deepcopy(module.state_dict()))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    found = {name.split("/")[0] for name in trainer.callback_metrics}
    assert {"collapse", "gradients", "probe"} <= found
    assert 1 < trainer.callback_metrics["collapse/lidar"] <= 6


class Copying(Callback):
    """Keeps the module as it is before each step."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.before = copy.deepcopy(module)


def test_gradients_of_the_four_losses(make_module: Any, make_batch: Any, fit: Any) -> None:
    batches = [make_batch(range(4 * i, 4 * i + 4)) for i in range(2)]
    copying = Copying()
    monitor = GradientConflict(every_n_steps=2, trunk="query_encoder", weights={"order": 0.5})
    trainer = fit(make_module(), batches, copying, monitor)
    rows = {}
    for name in NAMES:
        module = copy.deepcopy(copying.before)
        module._trainer = None
        losses: dict[str, Any] = {}
        module.objectives[name].register_forward_hook(
            lambda _, inputs, output, losses=losses: losses.update(loss=output.loss)
        )
        module.training_step(batches[1], 1)
        losses["loss"].backward()
        weights = module.encoders["query"].parameters()
        rows[name] = torch.cat([w.grad.flatten() for w in weights])
    found = trainer.callback_metrics
    for name, row in rows.items():
        weight = 0.5 if name == "order" else 1.0
        norm = weight * float(row.norm())
        assert found[f"gradients/norm/{name}"] == pytest.approx(norm, rel=1e-4)
    for i, one in enumerate(NAMES):
        for other in NAMES[i + 1 :]:
            cosine = float(rows[one] @ rows[other] / rows[one].norm() / rows[other].norm())
            name = f"gradients/cosine/{one}-{other}"
            assert found[name] == pytest.approx(cosine, abs=1e-4)
