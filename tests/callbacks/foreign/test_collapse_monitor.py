"""What the collapse monitor measures, when it speaks up, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_modules import MODULES, SimCLR, make_loader, make_trainer

from vclr_lightning.callbacks import AtomicCheckpointIO, CollapseMonitor, ResumableCheckpoint
from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.collapse import alignment, lidar, rankme, uniformity

MEASURES = {"rankme", "spread", "uniformity"}


class Remembering(SimCLR):
    """Keeps what its encoder returned for each batch."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        seen = self.encoder.register_forward_hook(
            lambda module, inputs, output: self.seen.append(output.detach().clone())
        )
        loss = super().training_step(batch, batch_idx)
        seen.remove()
        return loss

    seen: list[torch.Tensor]


def test_measures_are_those_of_the_last_samples() -> None:
    torch.manual_seed(0)
    module = Remembering()
    module.seen = []
    monitor = CollapseMonitor(samples=10)
    metrics = make_trainer(monitor, max_epochs=1).fit(module, make_loader("plain", "simclr"))
    metrics = monitor.measure()
    views = [torch.stack(rows.chunk(2), dim=1) for rows in module.seen]
    last = torch.cat(views)[-10:]
    assert metrics["collapse/rankme"] == pytest.approx(float(rankme(last[:, 0])))
    assert metrics["collapse/lidar"] == pytest.approx(float(lidar(last)))
    assert metrics["collapse/alignment"] == pytest.approx(float(alignment(last)))
    assert metrics["collapse/uniformity"] == pytest.approx(float(uniformity(last[:, 0])))


@pytest.mark.parametrize(("kind", "more"), [("classifier", set()), ("simclr", {"lidar"})])
def test_views_decide_what_can_be_measured(kind: str, more: set[str]) -> None:
    trainer = make_trainer(CollapseMonitor(features=["encoder.0", "encoder"]))
    trainer.fit(MODULES[kind](), make_loader("plain", kind))
    found = {name.split("/")[2] for name in trainer.callback_metrics if name.count("/") == 2}
    assert found == MEASURES | more | ({"alignment"} if more else set())
    assert trainer.callback_metrics["collapse/alarm"] == 0


class Collapsing(SimCLR):
    """Its features are all the same from the fourth batch on."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            with torch.no_grad():
                for parameter in self.encoder.parameters():
                    parameter.zero_()
                self.encoder[1].bias.fill_(1)
                self.encoder[5].p = 0
            self.encoder.requires_grad_(False)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("stop", [False, True])
def test_alarm(stop: bool, caplog: pytest.LogCaptureFixture) -> None:
    monitor = CollapseMonitor(every_n_steps=1, samples=4, patience=2, stop=stop)
    trainer = make_trainer(monitor)
    trainer.fit(Collapsing(), make_loader("plain", "simclr"))
    said = [r.getMessage() for r in caplog.records if "collapse" in r.getMessage()]
    assert len(said) == 2
    assert said[0].startswith(
        "The features collapse: collapse/rankme is 1, below 1.5 in 2 measurements up to batch 5. "
    )
    assert said[1].startswith("The features collapse: collapse/spread is 0, below 0.02")
    assert said[0].endswith("stops." if stop else "goes on (stop=False).")
    assert trainer.callback_metrics["collapse/alarm"] == 1
    assert trainer.global_step == (5 if stop else 10)


def test_the_best_checkpoint_is_chosen_without_labels(tmp_path: Path) -> None:
    """By Lightning's checkpoint and by ours."""
    from vclr_lightning.core.lightning import PACKAGE

    name = "pytorch_lightning" if PACKAGE == "pytorch_lightning" else "lightning.pytorch"
    model_checkpoint = __import__(f"{name}.callbacks", fromlist=["x"]).ModelCheckpoint
    theirs = model_checkpoint(dirpath=tmp_path, monitor="collapse/rankme", mode="max")
    ours = ResumableCheckpoint(directory=tmp_path, monitor="collapse/rankme")
    values: list[float] = []

    class Listing(CollapseMonitor):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            values.append(self.measure()["collapse/rankme"])

    trainer = make_trainer(
        Listing(),
        theirs,
        ours,
        max_epochs=4,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(SimCLR(), make_loader("plain", "simclr"))
    assert len(values) == 4
    assert float(theirs.best_model_score) == pytest.approx(max(values), rel=1e-6)
    assert ours.best_score == pytest.approx(max(values), rel=1e-6)
    assert Path(ours.best_model_path).exists()


def test_a_run_that_continues_measures_the_same(tmp_path: Path, fit: Any) -> None:
    found = {}
    for parts in ([3], [1, 3]):
        for epochs in parts:
            monitor = CollapseMonitor(samples=30, features="net.0")
            fit(tmp_path / str(len(parts)), monitor, max_epochs=epochs)
        found[len(parts)] = monitor.measure()
    assert found[1] == found[2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 1}, "samples=1"),
        ({"patience": 0}, "patience=0"),
        ({"alarm": {"uniformity": 1}}, "names uniformity"),
        ({"views": "both"}, "views='both' of features must be outside or inside"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CollapseMonitor(**options)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ("encoder.7", r"SimCLR has no layer 'encoder\.7'; near it are encoder"),
        ("projector.2.x", "has no layer"),
        ("projector.1", None),
        (lambda module, batch: torch.zeros(3, 5), "gives 3 rows for 4 samples"),
        (lambda module, batch: torch.zeros(4), r"gives \(4,\), neither features"),
    ],
)
def test_what_cannot_be_read_is_named(features: Any, says: str | None) -> None:
    trainer = make_trainer(CollapseMonitor(features=features), max_epochs=1)
    loader = make_loader("plain", "simclr")
    if says is None:
        trainer.fit(SimCLR(), loader)
    else:
        with pytest.raises(UserError, match=says):
            trainer.fit(SimCLR(), loader)


def test_a_module_without_a_usual_name() -> None:
    class Odd(SimCLR):
        def __init__(self) -> None:
            super().__init__()
            self.tower = self.encoder
            del self.encoder

    with pytest.raises(UserError, match=r"Odd has no submodule named query_encoder, .* projector"):
        make_trainer(CollapseMonitor()).fit(Odd(), make_loader("plain", "simclr"))
