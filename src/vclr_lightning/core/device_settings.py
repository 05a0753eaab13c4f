"""Settings that a device's kernels want, decided from what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vclr_lightning.core.lightning import Trainer

_HALF_CORES = (7, 0)  # compute capability: Volta and later multiply float16 on tensor cores,
_TF32_CORES = (8, 0)  # Ampere and later bfloat16 and TF32 as well
_FULL = "highest"  # matmul_precision without TF32


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """What a run takes where its configuration leaves a setting to the device (``null``).

    Attributes:
        channels_last: keep pictures and the weights of 2D networks in the channels-last format.
        benchmark: let cuDNN time its algorithms on each new shape, and keep the fastest.
        tf32: round the inputs of float32 products and convolutions to 10 bits of mantissa.
    """

    channels_last: bool = False
    benchmark: bool = False
    tf32: bool = False


def device_settings(
    device: str,
    *,
    capability: tuple[int, int] = (0, 0),
    precision: object = "32-true",
    matmul_precision: str = "high",
    deterministic: bool = False,
) -> DeviceSettings:
    """Return the settings for a kind of device.

    Channels-last pays where convolutions run on tensor cores, which need it and to which cuDNN
    otherwise transposes every map: in float16 from Volta on, in bfloat16 and TF32 from Ampere on.
    The search among algorithms may choose another one in the next run, so a deterministic run does
    without. On other devices than CUDA's nothing is changed.

    Args:
        device: its type: cpu, cuda, mps.
        capability: of a CUDA device, ``(major, minor)``.
        precision: of the trainer.
        matmul_precision: highest, high or medium; TF32 is used below highest.
        deterministic: whether the run has to repeat bit for bit.

    Example:
        >>> device_settings("cuda", capability=(9, 0), deterministic=True)
        DeviceSettings(channels_last=True, benchmark=False, tf32=True)
        >>> device_settings("cuda", capability=(7, 0)).channels_last  # V100: float32 has no cores
        False
        >>> device_settings("cpu") == DeviceSettings()
        True
    """
    if device != "cuda":
        return DeviceSettings()
    tf32 = matmul_precision != _FULL and capability >= _TF32_CORES
    kind = str(precision)
    half = kind.startswith("16") and capability >= _HALF_CORES
    brain = kind.startswith("bf16") and capability >= _TF32_CORES
    return DeviceSettings(
        channels_last=(tf32 and kind.startswith("32")) or half or brain,
        benchmark=not deterministic,
        tf32=tf32,
    )


def trainer_settings(trainer: Trainer) -> DeviceSettings:
    """Return the settings for the device of a trainer."""
    device = trainer.strategy.root_device
    return device_settings(
        device.type,
        capability=torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0),
        precision=trainer.precision,
        matmul_precision=torch.get_float32_matmul_precision(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
