"""The settings that a device gets, without one."""

from __future__ import annotations

from typing import Any

import pytest

from vclr_lightning.core.device_settings import DeviceSettings, device_settings

# Compute capabilities, by NVIDIA's list.
P100, V100, T4, A100, L40S, H100 = (6, 0), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0)


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_cuda_nothing_changes(device: str, precision: str) -> None:
    found = device_settings(device, precision=precision, capability=H100)
    assert found == DeviceSettings(channels_last=False, benchmark=False, tf32=False)


@pytest.mark.parametrize("capability", [P100, V100, T4, A100, L40S, H100])
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_channels_last_where_tensor_cores_convolve(
    capability: tuple[int, int], precision: str, matmul: str
) -> None:
    cores: dict[Any, set[str]] = {  # what each card's tensor cores multiply
        P100: set(),
        V100: {"16-mixed"},
        T4: {"16-mixed"},
        A100: {"16-mixed", "bf16-mixed", "32-true"},
    }
    ampere = cores[A100]
    able = cores.get(capability, ampere)
    if matmul == "highest":
        able = able - {"32-true"}
    found = device_settings(
        "cuda", capability=capability, precision=precision, matmul_precision=matmul
    )
    assert found.channels_last == (precision in able)
    assert found.tf32 == (capability >= A100 and matmul != "highest")


def test_a_deterministic_run_searches_no_algorithms() -> None:
    assert device_settings("cuda", capability=H100).benchmark
    assert not device_settings("cuda", capability=H100, deterministic=True).benchmark
