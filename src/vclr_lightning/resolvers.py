"""What the configuration computes: registered once, when the configuration is first read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Overrides that say where things are; they don't tell a sweep's jobs apart.
_NOT_IN_NAME = ("data.root", "data.manifest", "experiment", "name", "init", "resume", "logger")


def scale_lr(base: float, batch_size: int) -> float:
    """Learning rate for a global batch, given that for 256 videos.

    Example:
        >>> scale_lr(0.1, 512)
        0.2
    """
    return base * batch_size / 256


def short_edge(size: int) -> int:
    """Short edge to which a frame is brought before ``size`` is cut out: 256 for 224.

    Example:
        >>> short_edge(224), short_edge(64)
        (256, 73)
    """
    return round(size * 256 / 224)


def folder_name(overrides: list[str]) -> str:
    """A folder's name for one job of a sweep.

    Example:
        >>> folder_name(["+experiment=k400", "num_segments=5", "data.root=/k400"])
        'num_segments=5'
    """
    named = [o.lstrip("+~") for o in overrides]
    kept = [o for o in named if not o.startswith(tuple(n + "=" for n in _NOT_IN_NAME))]
    return re.sub(r"[^\w=.,+-]+", "_", ",".join(kept)) or "job"


def _sweep_folder() -> str:
    """The job's folder below the run's, or nothing outside of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return ""
    return folder_name(list(HydraConfig.get().overrides.task))


def run_name(name: str) -> str:
    """The run's name, below it in a sweep the job's.

    Example:
        >>> run_name("k400")
        'k400'
    """
    job = _sweep_folder()
    return f"{name}/{job}" if job else name


def register_resolvers() -> None:
    """Make ``${scale_lr:...}``, ``${short_edge:...}``, ``${run_name:...}`` and
    ``${run_subdir:}`` known to OmegaConf.
    """
    from omegaconf import OmegaConf

    resolvers: dict[str, Callable[..., Any]] = {
        "scale_lr": scale_lr,
        "short_edge": short_edge,
        "run_name": run_name,
        "run_subdir": lambda: _sweep_folder() or "job",
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
