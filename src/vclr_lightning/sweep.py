"""A sweep's job of several processes, in a command of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def needs_command(cfg: DictConfig) -> bool:
    """Whether this is a sweep's job that starts further processes.

    They would repeat the command line, and so the whole sweep.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    swept = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    return swept and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1)


def run_command(cfg: DictConfig) -> dict[str, float]:
    """Run the job by ``python -m vclr_lightning.train``, and return what it measured.

    Signals are the job's to answer; its status, where it is not 0, ends the sweep.
    """
    from hydra.core.hydra_config import HydraConfig

    from vclr_lightning.resolvers import run_name

    overrides = [*HydraConfig.get().overrides.task, f"name='{run_name(cfg.name)}'"]
    job = subprocess.Popen([sys.executable, "-m", "vclr_lightning.train", *overrides])
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # reaches the job by itself
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: job.terminate()),
    }
    try:
        status = job.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if status:
        sys.exit(status)
    values: dict[str, float] = json.loads((Path(cfg.run_dir) / "result.json").read_text())
    return values
