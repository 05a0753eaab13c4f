"""The devices and processes that run a pretrained network."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vclr_lightning.core.errors import UserError

logger = logging.getLogger(__name__)

_MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
_TRUE = ("32-true", "64-true", "16-true", "bf16-true")
_AMX = "amx_bf16"  # among the flags of a processor
_SHORT = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def fastest_precision(accelerator: str = "auto", *, cpuinfo: str | Path = "/proc/cpuinfo") -> str:
    """Return the precision to train in on this machine, and say why in the log.

    That is ``bf16-mixed`` on a CPU with AMX, which multiplies bfloat16 matrices in hardware. On a
    CPU without it bfloat16 is slower than float32 (``benchmarks/precision.py``). There and on other
    devices it is ``32-true``.

    Args:
        accelerator: of the trainer: auto, cpu, gpu and so on.
        cpuinfo: file of Linux that lists the processor's flags.
    """
    if Hardware(accelerator=accelerator).each[0].type != "cpu":
        taken, why = "32-true", "this is not a CPU; give 16-mixed or bf16-mixed for half precision"
    elif _AMX in (Path(cpuinfo).read_text() if Path(cpuinfo).is_file() else "").split():
        taken, why = "bf16-mixed", "this processor has AMX"
    else:
        taken, why = "32-true", "this processor has no AMX, without which bfloat16 is not faster"
    logger.info("trainer.precision=auto is %s: %s", taken, why)
    return taken


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Devices of this machine, one process on each.

    Args:
        accelerator: auto, cpu, gpu and so on.
        devices: processes, or which devices, or auto.
        precision: 32-true, 16-mixed or bf16-mixed; other precisions of a trainer, auto among them,
            run in float32.
            On the CPU bfloat16 replaces float16, as in training.
        threads: of each process on the CPU; by default its share of the cores.

    Raises:
        UserError: there is no such device, or no such precision.

    Example:
        >>> Hardware(accelerator="cpu", devices=2).each
        [device(type='cpu'), device(type='cpu')]
    """

    accelerator: str = "auto"
    devices: Any = 1
    precision: Any = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        precision = _SHORT.get(str(self.precision), self.precision)
        precision = "32-true" if precision == "auto" else precision
        if precision not in (*_TRUE, *_MIXED):
            raise UserError(f"precision={precision} must be 32-true, {' or '.join(_MIXED)}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more")
        if not self.each:
            raise UserError(f"devices={self.devices} names no device")
        taken = precision if precision in _MIXED else "32-true"
        if taken == "16-mixed" and self.each[0].type == "cpu":
            taken = "bf16-mixed"
        if taken != precision:
            logger.info("precision=%s: pretrained networks run in %s here", precision, taken)
        object.__setattr__(self, "precision", taken)

    @property
    def each(self) -> list[torch.device]:
        """The device of each process."""
        # Imported late: it takes seconds, which worker processes need not spend.
        from vclr_lightning.core.lightning import ACCELERATOR_REGISTRY, MisconfigurationException

        known = {name: ACCELERATOR_REGISTRY[name]["accelerator"] for name in ACCELERATOR_REGISTRY}
        name = "cuda" if self.accelerator == "gpu" else self.accelerator
        if name == "auto":
            name = next(n for n in ("cuda", "mps", "cpu") if known[n].is_available())
        kind = known.get(name)
        if kind is None or not kind.is_available():
            raise UserError(f"there is no accelerator={self.accelerator} on this machine")
        devices = self.devices
        if devices == "auto":
            devices = 1 if name == "cpu" else kind.auto_device_count()
        try:
            return list(kind.get_parallel_devices(kind.parse_devices(devices)))
        except (MisconfigurationException, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"devices={self.devices} are not available: {reason}") from error

    def computing(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the autocast context of the network."""
        kind = _MIXED.get(self.precision)
        return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)
