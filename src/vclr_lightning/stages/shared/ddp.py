"""DDP in which no rank goes on alone, and the cause is reported in one sentence."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch.distributed import distributed_c10d

from vclr_lightning.core import distributed, processes
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import (
    DDPStrategy,
    _set_num_threads_if_needed,
    _SubprocessScriptLauncher,
)
from vclr_lightning.core.processes import how_ended, is_stopped, report_failure
from vclr_lightning.core.stopping import KILL, StopRequested, write_stderr

# Public since torch 2.14.
set_timeout: Callable[[timedelta], None] = getattr(
    torch.distributed, "set_timeout", distributed_c10d._set_pg_timeout
)

_POLL = 1.0  # seconds
_ENDING = 5.0  # seconds from when the connections of a process close until it has ended, at most
_START = 600.0  # seconds for all ranks to start, at least
_PATIENCE = 15.0  # seconds for this rank to notice that another one is gone
_CONTINUES = "the same command continues from the last checkpoint"

_monitors: weakref.WeakSet[RankMonitor] = weakref.WeakSet()


class WatchedDDP(DDPStrategy):
    """DDP that ends on all ranks, with one sentence, where a rank is killed, stopped or fails.

    Buffers are not broadcast.

    Args:
        timeout: seconds that a rank may wait for another one.
    """

    def __init__(self, timeout: float) -> None:
        self._wait = distributed.control_timeout = timedelta(seconds=timeout)
        # Before torch 2.10, gloo keeps the timeout that it begins with.
        start = timeout if torch.__version__ < "2.10" else max(timeout, _START)
        super().__init__(
            broadcast_buffers=False,
            find_unused_parameters=False,
            timeout=timedelta(seconds=start),
        )

    def setup_distributed(self) -> None:
        super().setup_distributed()
        set_timeout(self._wait)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(
            self.cluster_environment,
            self.num_processes,
            self.num_nodes,
            timeout=self._wait.total_seconds(),
        )


class _Launcher(_SubprocessScriptLauncher):
    """Monitors the ranks it has launched, in place of Lightning, which kills all without a word."""

    def __init__(self, *arguments: Any, timeout: float) -> None:
        super().__init__(*arguments)
        self._timeout = timeout

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Any = None, **options: Any
    ) -> Any:
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        monitor = None
        if not self.cluster_environment.creates_processes_externally:
            os.environ[processes.PARENT] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[processes.PARENT]
            atexit.register(_kill, self.procs)  # before exit closes what they would miss
            first = self.cluster_environment.node_rank() * self.num_processes + 1
            monitor = RankMonitor(self.procs, first=first, timeout=self._timeout)
            monitor.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **options)
        except StopRequested:
            _kill(self.procs)  # before they report that this one is gone
            raise
        except Exception as error:
            if reason := lost_rank(error):
                raise UserError(reason) from error
            raise
        finally:
            if monitor is not None:
                monitor.training_over.set()


class RankMonitor(threading.Thread):
    """Polls launched ranks, and ends this one where one of them is lost.

    Args:
        launched: the ranks.
        first: number of the first of them.
        timeout: seconds that one may be stopped.
    """

    def __init__(self, launched: list[subprocess.Popen[bytes]], *, first: int, timeout: float):
        super().__init__(daemon=True, name="rank-monitor")
        self.training_over = threading.Event()
        self.reason: str | None = None
        self._launched = list(enumerate(launched, first))
        self._timeout = timeout
        _monitors.add(self)

    def run(self) -> None:
        stopped = 0.0
        while any(process.poll() != 0 for _, process in self._launched):
            time.sleep(_POLL)
            reason = self.check()
            stopped = stopped + _POLL if reason and "stopped" in reason else 0.0
            if reason and not 0 < stopped < self._timeout:
                self._end(reason)
                return

    def check(self) -> str | None:
        """Return which rank is lost, and how, if one is."""
        for number, process in self._launched:
            name = f"rank {number} (process {process.pid})"
            if status := process.poll():
                hint = "; what it printed says why" if status > 0 else ""
                return f"{name} {how_ended(status)}{hint}; {_CONTINUES}"
            if is_stopped(process.pid):
                return f"{name} is stopped (SIGSTOP); {_CONTINUES}"
        return None

    def _end(self, reason: str) -> None:
        self.reason = reason
        _kill([process for _, process in self._launched])
        # A rank that waits for them usually gets an error.
        if not self.training_over.wait(_PATIENCE):
            write_stderr(f"error: {reason}")
            report_failure(reason)
            os._exit(2)


def lost_rank(error: BaseException) -> str | None:
    """Return why the ranks lost each other, where that caused ``error``; otherwise ``None``.

    Example:
        >>> lost_rank(ValueError("a fault")) is None
        True
    """
    of_gloo = any(words in str(error) for words in ("/gloo/", "timeout caused pair closure"))
    if not of_gloo and not isinstance(error, torch.distributed.DistError):
        return None
    if "EADDRINUSE" in str(error):
        return (
            f"port {os.environ.get('MASTER_PORT')}, at which the ranks were to meet, is in use by "
            "another process; give the command again, or set MASTER_PORT to a free port"
        )
    deadline = time.monotonic() + _ENDING
    while _monitors and time.monotonic() < deadline:
        for monitor in _monitors:
            if reason := monitor.reason or monitor.check():
                return reason
        time.sleep(_POLL / 10)
    launcher = processes.followed
    if launcher is not None and is_stopped(launcher):
        reason = f"rank 0 (process {launcher}) is stopped (SIGSTOP); {_CONTINUES}"
        write_stderr(f"error: {reason}")
        os.kill(launcher, KILL)  # and this process with it
    return (
        f"rank {distributed.rank()} lost another rank, which has ended, or did not answer within "
        f"trainer.timeout; what that one printed says why; {_CONTINUES}"
    )


def _kill(launched: list[subprocess.Popen[bytes]]) -> None:
    for process in launched:
        process.kill()
