"""A sweep's job of several processes, in a command of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


_TELL = "VCLR_FAILURE_FILE"  # where a job's command is to write why it failed
_SIGNALLED = 128  # statuses from here on are those of signals


def in_sweep() -> bool:
    """Whether this is a sweep's job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


@contextmanager
def failure_told() -> Iterator[None]:
    """Tell the sweep, where this process is a job's command, why it fails."""
    try:
        yield
    except Exception as error:
        if file := os.environ.get(_TELL):
            from vclr_lightning.explain import explain

            Path(file).write_text(explain(error) or f"{type(error).__name__}: {error}")
        raise


def needs_command(cfg: DictConfig) -> bool:
    """Whether this is a sweep's job that starts further processes.

    They would repeat the command line, and so the whole sweep.
    """
    return in_sweep() and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1)


def run_command(cfg: DictConfig, *, tracebacks: bool = False) -> dict[str, float]:
    """Run the job by ``python -m vclr_lightning.train``, and return what it measured.

    Signals are the job's to answer; a status of one ends the sweep.

    Args:
        cfg: of the job.
        tracebacks: whether the command shows its errors in full.

    Raises:
        UserError: the job failed, and why.
    """
    from hydra.core.hydra_config import HydraConfig

    from vclr_lightning.resolvers import run_name

    overrides = [*HydraConfig.get().overrides.task, f"name='{run_name(cfg.name)}'"]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "reason"
        job = subprocess.Popen(
            [sys.executable, "-m", "vclr_lightning.train", *overrides],
            env={**os.environ, _TELL: str(told), "HYDRA_FULL_ERROR": str(int(tracebacks))},
        )
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # reaches it by itself
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: job.terminate()),
        }
        try:
            status = job.wait()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if status > _SIGNALLED:
            sys.exit(status)
        if status:
            reason = told.read_text() if told.exists() else ""
            raise UserError(reason or _ended(status))
    values: dict[str, float] = json.loads((Path(cfg.run_dir) / "result.json").read_text())
    return values


def _ended(status: int) -> str:
    """How a command ended that did not say why."""
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"its command ended with {how}; what it printed says why"
