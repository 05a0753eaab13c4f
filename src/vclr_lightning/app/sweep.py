"""A sweep's job of several processes, in a command of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import quoted
from vclr_lightning.core.processes import report_failure, run_command
from vclr_lightning.core.reading import read_numbers

if TYPE_CHECKING:
    from omegaconf import DictConfig


def in_sweep() -> bool:
    """Whether this is a sweep's job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


@contextmanager
def failure_told() -> Iterator[None]:
    """Tell the sweep or evaluation, where this process is a command of it, why it fails."""
    try:
        yield
    except Exception as error:
        from vclr_lightning.app.explain import explain

        report_failure(explain(error) or f"{type(error).__name__}: {error}")
        raise


def check_sweep(words: Sequence[str]) -> None:
    """Refuse a sweep all of whose jobs would be in one folder.

    Args:
        words: of the command line.

    Raises:
        UserError: see above.

    Example:
        >>> check_sweep(["-m", "run_dir=/runs/mine", "num_segments=3,5"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: run_dir=/runs/mine would be the folder of every ...
    """
    if not {"-m", "--multirun"} & set(words):
        return
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "run_dir" and "${" not in value and "," not in value:
            raise UserError(
                f"run_dir={value} would be the folder of every job of the sweep; give name=..., "
                "below which each job gets its own"
            )


def needs_command(cfg: DictConfig) -> bool:
    """Whether this is a sweep's job that starts further processes.

    They would repeat the command line, and so the whole sweep.
    """
    return in_sweep() and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1)


def run_job(cfg: DictConfig) -> dict[str, float]:
    """Run the job by ``python -m vclr_lightning.train``, and return what it measured.

    Args:
        cfg: of the job.

    Raises:
        UserError: the job failed, and why.
    """
    from hydra.core.hydra_config import HydraConfig

    from vclr_lightning.app.resolvers import run_name

    overrides = [*HydraConfig.get().overrides.task, f"name={quoted(run_name(cfg.name))}"]
    run_command([sys.executable, "-m", "vclr_lightning.train", *overrides])
    return read_numbers(Path(cfg.run_dir) / "result.json")
