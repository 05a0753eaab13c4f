"""Which of Lightning's two packages is used, and what a trainer of the other one is told."""

from __future__ import annotations

import inspect
import os
import sys
from types import ModuleType

import pytest

import vclr_lightning.callbacks as offered
from vclr_lightning.core import lightning
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckpointIO, check_trainer

OTHER = {"pytorch_lightning": "lightning.pytorch", "lightning": "pytorch_lightning"}


@pytest.mark.parametrize(
    ("variable", "imported", "chosen"),
    [
        ("", set(), "pytorch_lightning"),
        ("", {"lightning.pytorch"}, "lightning"),
        ("", {"pytorch_lightning"}, "pytorch_lightning"),
        ("", {"lightning.pytorch", "pytorch_lightning"}, "pytorch_lightning"),
        ("lightning", {"pytorch_lightning"}, "lightning"),
        ("pytorch_lightning", {"lightning.pytorch"}, "pytorch_lightning"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch, variable: str, imported: set[str], chosen: str
) -> None:
    monkeypatch.setenv("VCLR_LIGHTNING", variable)
    for name in ("pytorch_lightning", "lightning.pytorch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        if name in imported:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert lightning._choose()[0] == chosen


def test_unknown_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCLR_LIGHTNING", "keras")
    with pytest.raises(UserError, match="VCLR_LIGHTNING=keras must be"):
        lightning._choose()


def test_child_processes_choose_alike() -> None:
    assert os.environ["VCLR_LIGHTNING"] == lightning.PACKAGE


def foreign_trainer() -> object:
    base = type("Trainer", (), {"__module__": f"{OTHER[lightning.PACKAGE]}.trainer.trainer"})
    return type("OwnTrainer", (base,), {"__module__": "__main__"})()


def test_trainer_of_the_other_package() -> None:
    with pytest.raises(UserError) as caught:
        check_trainer(foreign_trainer())
    text = str(caught.value)
    assert f"one of {OTHER[lightning.PACKAGE]}, but vclr_lightning uses" in text
    assert "VCLR_LIGHTNING=" in text
    assert "\n" not in text


def test_every_callback_refuses_it() -> None:
    """In ``setup``, the first hook that Lightning calls, also of other packages' callbacks."""
    refusing = set()
    for name in offered.__all__:
        cls = getattr(offered, name)
        if not inspect.isclass(cls) or not hasattr(cls, "setup") or issubclass(cls, CheckpointIO):
            continue
        with pytest.raises(UserError, match="but vclr_lightning uses"):
            cls.__new__(cls).setup(foreign_trainer(), None, "fit")
        refusing.add(name)
    assert {"ResumableCheckpoint", "RunProgress", "GracefulStop", "Throughput"} <= refusing


def test_both_imported_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a module or plugin is made: the other package's trainer would not say why."""
    monkeypatch.setattr(lightning, "_reason", "as it was imported before vclr_lightning")
    monkeypatch.setattr(lightning, "_told", False)
    offered.AtomicCheckpointIO()
    assert not caplog.records
    other = OTHER[lightning.PACKAGE]
    monkeypatch.setitem(sys.modules, other, ModuleType(other))
    for _ in range(2):
        offered.AtomicCheckpointIO()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("AtomicCheckpointIO is one of")
    assert f"no trainer of {other} takes it" in said


def test_names_of_the_package() -> None:
    assert set(offered.__all__) <= set(dir(offered))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        offered.Nothing  # noqa: B018
