"""What a trainer takes from a GPU, and the line of the log that says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vclr_lightning.stages.shared.device_defaults import DeviceLog, choose_benchmark, use_precision
from vclr_lightning.stages.shared.trainer import build_trainer


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.fixture(autouse=True)
def _precision_restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("given", [None, False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_what_the_user_gives_wins(given: bool | None, deterministic: bool) -> None:
    for accelerator in ("auto", "gpu", "cuda"):
        found = choose_benchmark(accelerator, benchmark=given, deterministic=deterministic)
        assert found == (not deterministic if given is None else given)
    assert choose_benchmark("cpu", benchmark=given, deterministic=deterministic) is given


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("precision", "tf32"), [("highest", False), ("high", True)])
def test_convolutions_follow_matmul_precision(precision: str, tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = not tf32
    use_precision("cpu", matmul_precision=precision)
    assert torch.backends.cudnn.allow_tf32 is not tf32
    use_precision("auto", matmul_precision=precision)
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.get_float32_matmul_precision() == precision


def _fit_start(kind: str, module: nn.Module) -> None:
    loading = SimpleNamespace(pin_memory=True, num_workers=8, prefetch_factor=2)
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(kind)),
        precision="32-true",
        datamodule=SimpleNamespace(workers=lambda: loading),
    )
    DeviceLog().on_fit_start(trainer, module)  # type: ignore[arg-type]


@pytest.mark.usefixtures("gpu")
def test_one_line_says_what_trains_and_how(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    torch.set_float32_matmul_precision("high")
    module = nn.Sequential(nn.Linear(2, 2))
    module.pixels = SimpleNamespace(channels_last=True)  # type: ignore[assignment]
    _fit_start("cpu", module)
    assert not caplog.records
    _fit_start("cuda", module)
    assert [record.getMessage() for record in caplog.records] == [
        "NVIDIA H100 80GB HBM3: trainer.precision=32-true, trainer.matmul_precision=high (TF32), "
        "trainer.benchmark=false, module.channels_last=true, module.compile=false, "
        "data.pin_memory=true, data.num_workers=8, data.prefetch_factor=2"
    ]
    module.compile(backend="eager")
    _fit_start("cuda", module)
    assert "module.compile=true" in caplog.records[-1].getMessage()


def test_a_cpu_trains_as_before() -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    trainer = build_trainer(max_epochs=1, accelerator="cpu")
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before
    assert sum(isinstance(c, DeviceLog) for c in trainer.callbacks) == 1  # type: ignore[attr-defined]
