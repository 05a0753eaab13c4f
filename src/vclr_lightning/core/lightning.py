"""Lightning, from the package that the user's own code imports.

``lightning.pytorch`` and ``pytorch_lightning`` are the same code under two names, but a trainer of
one knows no callback of the other. Which one is used is decided once, when this file is imported:
the environment variable ``VCLR_LIGHTNING`` names it; else it is ``lightning.pytorch`` where that is
imported and ``pytorch_lightning`` is not; else ``pytorch_lightning``. Processes started by this one
decide alike, through the variable. All other files import Lightning's names from here.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.errors import UserError

_VARIABLE = "VCLR_LIGHTNING"
_MODULES = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}

logger = logging.getLogger(__name__)


def _choose() -> tuple[str, str]:
    """Return the package to use, and why."""
    if name := os.environ.get(_VARIABLE):
        if name not in _MODULES:
            raise UserError(f"{_VARIABLE}={name} must be lightning or pytorch_lightning")
        return name, f"as {_VARIABLE} says"
    if "pytorch_lightning" in sys.modules:
        return "pytorch_lightning", "as it was imported before vclr_lightning"
    if "lightning.pytorch" in sys.modules:
        return "lightning", "as it alone was imported before vclr_lightning"
    return "pytorch_lightning", "as lightning was not imported before vclr_lightning"


PACKAGE, _reason = _choose()
"""``"lightning"`` or ``"pytorch_lightning"``."""
os.environ[_VARIABLE] = PACKAGE
_told = False
_other = next(name for name in _MODULES if name != PACKAGE)

if TYPE_CHECKING or PACKAGE == "pytorch_lightning":
    from lightning_fabric.accelerators import ACCELERATOR_REGISTRY
    from lightning_fabric.plugins.environments import (  # type: ignore[attr-defined]
        LightningEnvironment,
        LSFEnvironment,
        MPIEnvironment,
        SLURMEnvironment,
        TorchElasticEnvironment,
    )
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning import (
        Callback,
        LightningDataModule,
        LightningModule,
        Trainer,
        seed_everything,
    )
    from pytorch_lightning.accelerators import AcceleratorRegistry
    from pytorch_lightning.callbacks import Checkpoint, ProgressBar
    from pytorch_lightning.loggers import Logger
    from pytorch_lightning.loggers import MLFlowLogger as LightningMLFlowLogger
    from pytorch_lightning.loggers import TensorBoardLogger as LightningTensorBoardLogger
    from pytorch_lightning.loggers import WandbLogger as LightningWandbLogger
    from pytorch_lightning.plugins.io import CheckpointIO
    from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
    from pytorch_lightning.strategies import DDPStrategy
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
    from pytorch_lightning.utilities import move_data_to_device, rank_zero_only
else:
    from lightning.fabric.accelerators import ACCELERATOR_REGISTRY
    from lightning.fabric.plugins.environments import (
        LightningEnvironment,
        LSFEnvironment,
        MPIEnvironment,
        SLURMEnvironment,
        TorchElasticEnvironment,
    )
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import (
        Callback,
        LightningDataModule,
        LightningModule,
        Trainer,
        seed_everything,
    )
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.callbacks import Checkpoint, ProgressBar
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.loggers import MLFlowLogger as LightningMLFlowLogger
    from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
    from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
    from lightning.pytorch.plugins.io import CheckpointIO
    from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
    from lightning.pytorch.utilities import move_data_to_device, rank_zero_only

__all__ = [
    "ACCELERATOR_REGISTRY",
    "PACKAGE",
    "AcceleratorRegistry",
    "AdvancedProfiler",
    "Callback",
    "CheckedCallback",
    "Checkpoint",
    "CheckpointIO",
    "ClusterEnvironment",
    "DDPStrategy",
    "LSFEnvironment",
    "LightningDataModule",
    "LightningEnvironment",
    "LightningMLFlowLogger",
    "LightningModule",
    "LightningTensorBoardLogger",
    "LightningWandbLogger",
    "Logger",
    "MPIEnvironment",
    "MisconfigurationException",
    "ProgressBar",
    "PyTorchProfiler",
    "SLURMEnvironment",
    "SimpleProfiler",
    "TorchElasticEnvironment",
    "Trainer",
    "_SubprocessScriptLauncher",
    "_set_num_threads_if_needed",
    "check_trainer",
    "move_data_to_device",
    "rank_zero_only",
    "seed_everything",
    "tell_choice",
]


def check_trainer(trainer: Any) -> None:
    """Refuse a trainer of the package that is not used here.

    Raises:
        UserError: it is one.

    Example:
        >>> check_trainer(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    """
    classes = {base.__module__ for base in type(trainer).__mro__}
    if any(module.startswith(_MODULES[_other] + ".") for module in classes):
        raise UserError(
            f"the trainer is one of {_MODULES[_other]}, but vclr_lightning uses"
            f" {_MODULES[PACKAGE]}, {_reason}: {_advice()}"
        )


def tell_choice(instance: object) -> None:
    """Warn, once, where both packages are imported and neither was asked for.

    A trainer of the other one refuses this package's modules and plugins without saying why.

    Args:
        instance: a module or plugin that has been made.
    """
    global _told
    if not _told and _MODULES[_other] in sys.modules and _VARIABLE not in _reason:
        _told = True
        logger.warning(
            "%s is one of %s, %s, and no trainer of %s takes it: %s",
            *(type(instance).__name__, _MODULES[PACKAGE], _reason, _MODULES[_other], _advice()),
        )


def _advice() -> str:
    first = f"import {_other} before vclr_lightning, without {PACKAGE}"
    return f"{first if _other == 'lightning' else f'do not import {PACKAGE}'}, or set" + (
        f" {_VARIABLE}={_other}"
    )


class CheckedCallback(Callback):
    """A callback that says so where the trainer is one of the other package.

    Raises:
        UserError: at the start, see :func:`check_trainer`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_trainer(trainer)
