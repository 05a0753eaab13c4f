"""Worker processes: how many, how started, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from typing import Any, Literal

from vclr_lightning.core.errors import UserError

StartMethod = Literal["fork", "spawn", "forkserver"]


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How samples are loaded; none of it changes what is loaded.

    Attributes:
        num_workers: processes that load; 0 loads in the training process.
        start_method: how they are started; ``None`` for the system's own.
        prefetch_factor: batches that each worker loads ahead.
        pin_memory: whether batches are put into page-locked memory.
        persistent: whether workers stay for the next epoch.

    Raises:
        UserError: a number is too small, or the start method is unknown.
    """

    num_workers: int = 0
    start_method: StartMethod | None = None
    prefetch_factor: int = 2
    pin_memory: bool = False
    persistent: bool = True

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("prefetch_factor", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        methods = multiprocessing.get_all_start_methods()
        if self.start_method is not None and self.start_method not in methods:
            known = " or ".join(methods)
            raise UserError(f"start_method={self.start_method!r} is unknown; take {known}")


def default_num_workers(processes: int = 1) -> int:
    """Return the cores that each of ``processes`` on this machine can have, less one for itself."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return max(1, cores // processes - 1)


def leave_signals_to_parent(_: int) -> None:
    """Ignore SIGINT and SIGTERM, in a worker."""
    # A signal to the whole process group is the training process's to answer: it finishes its
    # step and saves, which it cannot do if its workers die first. It ends them itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def stop_workers(iterators: list[Any]) -> None:
    """End the workers of these iterators, also those that are stuck; at exit at the latest.

    Python ends what is left of them at exit with a SIGTERM, which they ignore, and would wait.
    """
    while iterators:
        iterator = iterators.pop()
        iterator._shutdown_workers()
        for worker in iterator._workers:
            worker.kill()
