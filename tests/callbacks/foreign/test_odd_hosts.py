"""Hosts, batches and values that other projects have and the callbacks have to bear."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_modules import Classifier, Samples, make_loader, make_trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, default_collate

from vclr_lightning.callbacks import (
    CollapseMonitor,
    EmbeddingProjector,
    GradientConflict,
    MomentumUpdate,
    NonFiniteGuard,
    OnlineAttentiveProbe,
    OnlineKNN,
    OnlineLinearProbe,
    QueueMonitor,
    ResumableCheckpoint,
    RunProgress,
    Throughput,
)
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Callback
from vclr_lightning.loggers.csv import CSVLogger

pytestmark = pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*")


class Saving(Classifier):
    """Computes its encoder once more in the backward pass, to save memory."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, image: Tensor) -> Tensor:
        leaf = image.requires_grad_()
        return self.head(checkpoint(self.encoder, leaf, use_reentrant=self.reentrant))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        scores = self(batch["image"])
        losses = {"a": cross_entropy(scores, batch["label"]), "b": scores.square().mean()}
        return {"loss": sum(losses.values()), "losses": losses}


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_the_backward_pass_computes_again_is_no_view(reentrant: bool) -> None:
    monitor = CollapseMonitor(features=["encoder.0", "encoder"])
    make_trainer(monitor).fit(Saving(reentrant), make_loader("plain", "classifier"))
    assert [rows.shape for rows in monitor.recent.own().values()] == [(40, 1, 8)] * 2


class Skipping(Classifier):
    """Leaves out what it does not like."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*returned `None`.*")
def test_steps_without_a_forward_are_passed_over() -> None:
    monitor = CollapseMonitor()
    make_trainer(monitor).fit(Skipping(), make_loader("sequential", "classifier"))
    assert len(monitor.recent.own()["encoder"]) == 2 * 3 * 4


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_of_what_is_computed_again(reentrant: bool) -> None:
    """They leave running statistics as they are; reentrant checkpoints hide the weights."""

    def trained(*callbacks: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        module = Saving(reentrant)
        make_trainer(*callbacks).fit(module, make_loader("sequential", "classifier"))
        return module.state_dict()

    def two(module: Saving, name: str) -> Any:
        return {"a": module.head.weight.square().sum(), "b": module.head.weight.sum()}

    trunk = "encoder"
    conflict = GradientConflict(losses="losses", trunk=trunk, every_n_steps=2)
    conflict_outside = GradientConflict(losses=two, every_n_steps=2, name="outside")
    if reentrant:
        with pytest.raises(UserError, match="the losses a, b share no weights"):
            trained(conflict)
    else:
        alone, beside = trained(), trained(conflict, conflict_outside)
        for name, value in alone.items():
            assert torch.equal(value, beside[name]), name


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_layers_of_compiled_modules() -> None:
    module = Classifier()
    module.encoder = torch.compile(module.encoder, backend="eager")  # type: ignore[assignment]
    monitor = CollapseMonitor(features=["encoder", "encoder.1"], samples=8)
    make_trainer(monitor).fit(module, make_loader("sequential", "classifier"))
    assert {name: len(x) for name, x in monitor.recent.own().items()} == {
        "encoder": 8,
        "encoder.1": 8,
    }


class Failing(Classifier):
    """Some features are not finite, once in training and once in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = nn.Identity()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.encoder(batch["image"]).detach().clone()
        if batch_idx == 3:
            features[0, 2] = torch.nan
            features[1, 0] = torch.inf
        self.tap(features)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.tap(self.encoder(batch["image"]) * torch.nan)


@pytest.mark.filterwarnings("ignore:.*`val_dataloader.*shuffl.*")
@pytest.mark.parametrize(
    "make",
    [
        lambda folder: CollapseMonitor(features="tap", every_n_steps=1),
        lambda folder: EmbeddingProjector(features="tap", every_n_epochs=1, directory=folder),
        lambda folder: OnlineLinearProbe(features="tap", num_classes=3),
        lambda folder: OnlineKNN(features="tap"),
    ],
)
def test_features_that_are_not_finite_are_left_out(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    callback = make(tmp_path)
    trainer = make_trainer(callback)
    loader = make_loader("sequential", "classifier")
    trainer.fit(Failing(), loader, loader)
    for name, value in trainer.callback_metrics.items():
        assert value.isfinite(), name
        assert "val_top1" not in name or value == 0  # what is not finite is of no class
    if isinstance(callback, CollapseMonitor):
        assert {"collapse/rankme", "collapse/uniformity"} <= set(trainer.callback_metrics)
    if isinstance(callback, OnlineLinearProbe):
        assert all(weight.isfinite().all() for weight in callback.heads.parameters())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_precision_of_the_host(precision: Any) -> None:
    probes = [
        OnlineLinearProbe(features="encoder", num_classes=3),
        OnlineAttentiveProbe(features="encoder.2", num_classes=3),
        OnlineKNN(features="encoder"),
        CollapseMonitor(features="encoder"),
    ]
    trainer = make_trainer(*probes, precision=precision)
    loader = make_loader("sequential", "classifier")

    class Validated(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch["image"])

    trainer.fit(Validated(), loader, loader)
    assert {"probe/linear/val_top1", "probe/attentive/val_top1"} <= set(trainer.callback_metrics)


@dataclass
class Images:
    """A batch as a dataclass; `target` is a picture."""

    image: Tensor
    target: Tensor
    y: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return {"image": self.image, "label": self.y}[name]


def as_object(rows: list[Any]) -> Images:
    batch = default_collate(rows)
    return Images(batch["image"], batch["image"], batch["label"])


@pytest.mark.parametrize("labels", [None, "y"])
def test_labels_of_objects(labels: Any) -> None:
    probes = OnlineLinearProbe(num_classes=3, labels=labels), OnlineKNN(labels=labels)
    loader = DataLoader(Samples("classifier"), batch_size=4, collate_fn=as_object)
    trainer = make_trainer(*probes)
    trainer.fit(Classifier(), loader)
    assert {"probe/linear/train_top1", "probe/knn/train_top1"} <= set(trainer.callback_metrics)


def late(batch: Any) -> Tensor:
    return batch["label"] + 5 * (batch["label"] == 2) * ("sample-11" in batch["name"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (late, "the label 7 is none of num_classes=3"),
        (lambda batch: batch["label"][:3], "finds 3 classes for 4 samples"),
        (lambda batch: batch["label"][:, None], r"finds no classes \(B,\)"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, said: str) -> None:
    probe = OnlineLinearProbe(num_classes=3, labels=labels)
    with pytest.raises(UserError, match=said):
        make_trainer(probe).fit(Classifier(), make_loader("sequential", "classifier"))


def test_progress_goes_along_with_copies() -> None:
    bar = RunProgress(line_every_s=7)
    for copied in (pickle.loads(pickle.dumps(bar)), copy.deepcopy(bar)):
        assert copied.line_every_s == 7
        assert copied.console.stderr


def test_a_trial_replaces_no_checkpoint(tmp_path: Path) -> None:
    saving = ResumableCheckpoint(directory=tmp_path, monitor="train/loss", mode="min")
    trainer = make_trainer(saving, enable_checkpointing=True, fast_dev_run=3)
    trainer.fit(Classifier(), make_loader("plain", "classifier"))
    assert list(tmp_path.iterdir()) == []


TWO: dict[str, Callable[..., Any]] = {
    "collapse": lambda layer, **name: CollapseMonitor(features=layer, **name),
    "probe/knn": lambda layer, **name: OnlineKNN(features=layer, **name),
    "gradients": lambda layer, **name: GradientConflict(
        losses=squares, trunk=layer, every_n_steps=1, **name
    ),
}


def squares(module: Any, batch: Any) -> dict[str, Tensor]:
    features = module.encoder[0](batch["image"])
    return {"one": features.square().mean(), "other": features.mean()}


@pytest.mark.parametrize("usual", TWO)
def test_two_of_a_kind_have_names_of_their_own(usual: str) -> None:
    def values(*callbacks: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        trainer = make_trainer(*callbacks)
        trainer.fit(Classifier(), make_loader("sequential", "classifier"))
        return {k: v for k, v in trainer.callback_metrics.items() if k.startswith((usual, "own"))}

    layers = ["encoder", "encoder.0"]
    first, second = (values(TWO[usual](layer)) for layer in layers)
    second = {name.replace(usual, "own"): value for name, value in second.items()}
    both = values(TWO[usual](layers[0]), TWO[usual](layers[1], name="own"))
    assert first
    assert both == first | second
    with pytest.raises(UserError, match=f"under {usual}; give one of them another name"):
        values(*(TWO[usual](layer) for layer in layers))


def test_two_followers() -> None:
    module = Classifier()
    for name in ("encoder", "head"):
        setattr(module, f"slow_{name}", copy.deepcopy(getattr(module, name)))
    moved = [
        MomentumUpdate(pairs={name: f"slow_{name}"}, momentum=m, name=name)
        for name, m in (("encoder", 0.5), ("head", 0.25))
    ]
    trainer = make_trainer(*moved, accumulate_grad_batches=5)

    class Before(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            if not trainer.global_step:
                assert "encoder/value" not in trainer.callback_metrics

    trainer.callbacks.append(Before())
    trainer.fit(module, make_loader("plain", "classifier"))
    assert [one.updates for one in moved] == [2, 2]
    assert trainer.callback_metrics["encoder/value"] == 0.5
    assert trainer.callback_metrics["head/value"] == 0.25


class Queued(Classifier):
    """Fills a queue of 64 keys, four at a time, and then once more."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.ones(8, 64))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.encoder(batch["image"])
        rows = (self.place + torch.arange(len(features))) % 64
        self.queue[:, rows] = features.detach().T
        self.place += len(features)
        return super().training_step(batch, batch_idx)


def test_fill_of_a_queue_continues(tmp_path: Path) -> None:
    loader = make_loader("sequential", "classifier")
    options = {"queues": "queue", "dim": 1, "every_n_steps": 1}
    first = make_trainer(QueueMonitor(**options), max_epochs=1)
    first.fit(Queued(), loader)
    first.save_checkpoint(tmp_path / "one.ckpt")
    then = make_trainer(QueueMonitor(**options), max_epochs=2)
    then.fit(Queued(), loader, ckpt_path=str(tmp_path / "one.ckpt"))
    assert first.callback_metrics["queue/queue/fill"] == 20 / 64
    assert then.callback_metrics["queue/queue/fill"] == 40 / 64


def test_a_monitor_that_was_never_logged_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for monitor, said in (("val/accuracy", True), ("train/loss", False)):
        caplog.clear()
        saving = ResumableCheckpoint(directory=tmp_path, monitor=monitor)
        trainer = make_trainer(saving, enable_checkpointing=True, max_epochs=1)
        trainer.fit(Classifier(), make_loader("plain", "classifier"))
        assert ("monitor=val/accuracy; logged was train/loss" in caplog.text) == said
        assert ("no best checkpoint" in caplog.text) == said


def test_a_bank_of_another_training_is_forgotten() -> None:
    probe = OnlineKNN()
    for _ in range(2):
        make_trainer(probe, max_epochs=1).fit(Classifier(), make_loader("plain", "classifier"))
        assert len(probe.recent.own()["encoder"]) == 20


class Fixed(Classifier):
    """Has parameters that are not trained: a mask, and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)
        self.code = nn.Parameter(torch.arange(3), requires_grad=False)


def test_the_guard_looks_at_weights_that_are_trained(tmp_path: Path) -> None:
    module = Fixed()
    trainer = make_trainer(NonFiniteGuard(directory=tmp_path), max_epochs=1)
    trainer.fit(module, make_loader("plain", "classifier"))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    with torch.no_grad():
        module.head.bias[0] = torch.nan
    with pytest.raises(UserError, match="weights are not finite"):
        trainer.save_checkpoint(tmp_path / "two.ckpt")


@pytest.mark.filterwarnings("ignore:.*returned `None`, this fit will run with no optimizer.*")
def test_speed_without_an_optimizer(tmp_path: Path) -> None:
    class Evaluating(Classifier):
        def configure_optimizers(self) -> None:
            return None

    trainer = make_trainer(Throughput(), logger=CSVLogger(directory=tmp_path), max_epochs=1)
    trainer.fit(Evaluating(), make_loader("plain", "classifier"))
    assert "perf/samples_per_s" in (tmp_path / "metrics.csv").read_text()
