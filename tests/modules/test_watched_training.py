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
    QueueMonitor,
)
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback

NAMES = ("inter", "intra", "video", "order")


def test_training_goes_on_as_without_them(make_module: Any, make_batch: Any, fit: Any) -> None:
    batches = [make_batch(range(4 * i, 4 * i + 4)) for i in range(4)]
    classes: dict[str, Any] = {"views": "inside", "labels": lambda b: b["video_id"] % 3}
    watchers = [
        CollapseMonitor(views="inside", every_n_steps=2),
        GradientConflict(every_n_steps=2, trunk="query_encoder"),
        QueueMonitor(every_n_steps=2),
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
    assert {"collapse", "gradients", "probe", "queue"} <= found
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


def test_queues(make_module: Any, make_batch: Any, fit: Any) -> None:
    """Of 20 rows, written by four batches of four; videos come twice."""
    batches = [make_batch(videos) for videos in (range(4), range(4, 8), range(4), range(8, 12))]
    module = make_module(queue_size=20)
    found = fit(module, batches, QueueMonitor(every_n_steps=4)).callback_metrics
    assert found["queue/objectives.video/fill"] == pytest.approx(16 / 20)
    assert found["queue/objectives.video/age"] == pytest.approx((4 + 3 + 2 + 1) / 4)
    assert found["queue/objectives.video/stale"] == pytest.approx(4 / 16)
    keys = module.objectives["video"].queue.rows[:16]
    cosines = torch.corrcoef(torch.cat([keys, -keys], dim=1))  # of centred rows
    expected = float(cosines[~torch.eye(16, dtype=torch.bool)].mean())
    assert found["queue/objectives.video/similarity"] == pytest.approx(expected, abs=1e-5)


class MoCo(torch.nn.Module):
    """The queue as the authors' code has it: (D, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.randn(4, 10))


def test_a_queue_of_another_project(make_module: Any, make_batch: Any, fit: Any) -> None:
    module = make_module()
    module.moco = MoCo()

    class Filling(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            module.moco.queue[:, 2:5] = torch.eye(4)[:, :3]

    monitor = QueueMonitor(queues="moco.queue", dim=1, every_n_steps=1)
    found = fit(module, [make_batch(range(4))], Filling(), monitor).callback_metrics
    assert found["queue/moco.queue/fill"] == pytest.approx(0.3)
    assert found["queue/moco.queue/similarity"] == pytest.approx(0)
    assert found["queue/moco.queue/rankme"] == pytest.approx(3, abs=1e-3)
    with pytest.raises(UserError, match=r"has no queue moco\.keys"):
        fit(module, [make_batch(range(4))], QueueMonitor(queues="moco.keys"))
