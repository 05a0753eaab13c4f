"""What ``make gpu-check`` runs, on a device that is not there: nothing is on the wrong side."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, FakeCuda

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.gpu import cases, evaluation, loading
from benchmarks.gpu.agreement import train
from benchmarks.gpu.record import Setting
from benchmarks.train_step import make_batch, make_module

from benchmarks import train_step
from vclr_lightning.models import TinyBackbone


@pytest.fixture
def setting(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Setting:
    cuda.strict = False  # measuring waits
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 300)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: None)
    # Fake weights cannot be copied; the released step may as well change those it is given.
    monkeypatch.setattr(train_step, "copy", SimpleNamespace(deepcopy=lambda module: module))
    return Setting(device=CUDA, tiny=True, seconds=60)


@pytest.mark.parametrize("case", [cases.BASELINE, cases.CASES[-1]], ids=lambda case: case.name)
def test_steps(setting: Setting, case: cases.Case) -> None:
    step, batch = cases.build(case, setting), cases.batch_on(setting, 2)
    assert batch["views"]["anchor"].device.type == "cuda"
    assert step(batch, 0).device.type == "cuda"
    assert cases.peak_memory(step, batch, setting) == 200


def test_courses_end_on_the_host(setting: Setting) -> None:
    module = make_module(TinyBackbone(width=8, stages=1), 64)
    course = train(module, [make_batch(2, 32, seed) for seed in range(2)], CUDA)
    assert {x.device.type for x in (course.losses, course.queue, *course.gradients)} == {"cpu"}


def test_features(setting: Setting) -> None:
    rows: list[Any] = []
    evaluation.features(setting, lambda what, shown, **values: rows.append(values))
    assert len(rows) == 6
    assert all(row["images_per_s"] > 0 for row in rows)


def test_copies(setting: Setting) -> None:
    assert all(loading.copy_rate(setting, pinned=pinned) > 0 for pinned in (False, True))
