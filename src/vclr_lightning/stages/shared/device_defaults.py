"""What a trainer takes from the device where its configuration leaves it open, said in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch

from vclr_lightning.core.device_settings import device_settings, trainer_settings
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.lightning import Callback, LightningModule, Trainer

logger = logging.getLogger(__name__)

_CUDA = ("auto", "gpu", "cuda")  # accelerators that are CUDA's where there is one


def use_precision(accelerator: str, *, matmul_precision: str) -> None:
    """Set how float32 is multiplied, in convolutions as in matrix products.

    PyTorch's setting covers matrix products only; convolutions have a flag of cuDNN, on by default.

    Args:
        accelerator: of the trainer.
        matmul_precision: highest, high or medium.
    """
    torch.set_float32_matmul_precision(matmul_precision)
    if _on_cuda(accelerator):
        torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"


def choose_benchmark(
    accelerator: str, *, benchmark: bool | None, deterministic: bool
) -> bool | None:
    """Return whether cuDNN searches for the fastest algorithms; ``None`` changes nothing.

    Args:
        accelerator: of the trainer.
        benchmark: as given, which is kept.
        deterministic: whether the run has to repeat bit for bit.

    Example:
        >>> choose_benchmark("cpu", benchmark=None, deterministic=False)
        >>> choose_benchmark("cpu", benchmark=True, deterministic=True)
        True
    """
    if benchmark is not None or not _on_cuda(accelerator):
        return benchmark
    return device_settings("cuda", deterministic=deterministic).benchmark


def _on_cuda(accelerator: str) -> bool:
    return accelerator in _CUDA and torch.cuda.is_available()


class DeviceLog(Callback):
    """Says in one line of the log which GPU trains, and with which settings.

    They are read from the run itself, so the line is right whoever chose them. On a CPU there is
    none. Works with any LightningModule.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        if device.type == "cuda" and is_rank_zero():
            name = torch.cuda.get_device_name(device)
            logger.info("%s: %s", name, ", ".join(_settings(trainer, pl_module)))


def _settings(trainer: Trainer, module: Any) -> Iterator[str]:
    wanted, data = trainer_settings(trainer), getattr(trainer, "datamodule", None)
    yield f"trainer.precision={trainer.precision}"
    precision = torch.get_float32_matmul_precision()
    tf32 = "TF32" if wanted.tf32 else "full float32"
    yield f"trainer.matmul_precision={precision} ({tf32})"
    yield f"trainer.benchmark={str(torch.backends.cudnn.benchmark).lower()}"
    if (pixels := getattr(module, "pixels", None)) is not None:
        yield f"module.channels_last={str(pixels.channels_last).lower()}"
        compiled = any(part._compiled_call_impl is not None for part in module.modules())
        yield f"module.compile={str(compiled).lower()}"
    if callable(workers := getattr(data, "workers", None)):
        loading = workers()
        yield f"data.pin_memory={str(loading.pin_memory).lower()}"
        yield f"data.num_workers={loading.num_workers}"
        yield f"data.prefetch_factor={loading.prefetch_factor}"
