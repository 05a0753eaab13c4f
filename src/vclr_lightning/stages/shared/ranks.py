"""Ranks of one training: none goes on alone, and why is said in one sentence."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed import distributed_c10d

from vclr_lightning.core import distributed, processes
from vclr_lightning.core.distributed import rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.processes import how_ended, is_stopped, report_failure
from vclr_lightning.core.stopping import StopRequested, write_stderr

# Public since torch 2.14.
set_timeout: Callable[[timedelta], None] = getattr(
    torch.distributed, "set_timeout", distributed_c10d._set_pg_timeout
)

_GLANCE = 1.0  # seconds
_START = 600.0  # seconds for all ranks to start, at least
_PATIENCE = 15.0  # seconds for this rank to notice that another one is gone
_CONTINUES = "the same command continues from the last checkpoint"

_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()


class WatchedDDP(DDPStrategy):
    """DDP that ends on all ranks in one sentence where a rank is killed, stopped or fails.

    Buffers are not broadcast.

    Args:
        timeout: seconds that a rank may wait for another one.
    """

    def __init__(self, timeout: float) -> None:
        distributed.control_timeout = timedelta(seconds=timeout)
        super().__init__(
            broadcast_buffers=False,
            find_unused_parameters=False,
            timeout=timedelta(seconds=max(timeout, _START)),
        )

    def setup_distributed(self) -> None:
        super().setup_distributed()
        if distributed.control_timeout is not None:
            set_timeout(distributed.control_timeout)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        assert distributed.control_timeout is not None
        self._launcher = _Launcher(
            self.cluster_environment,
            self.num_processes,
            self.num_nodes,
            timeout=distributed.control_timeout.total_seconds(),
        )


class _Launcher(_SubprocessScriptLauncher):
    """Watches the ranks it has launched, instead of Lightning, which kills all without a word."""

    def __init__(self, *arguments: Any, timeout: float) -> None:
        super().__init__(*arguments)
        self._timeout = timeout

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Any = None, **options: Any
    ) -> Any:
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        watch = None
        if not self.cluster_environment.creates_processes_externally:
            os.environ[processes.PARENT] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[processes.PARENT]
            atexit.register(_kill, self.procs)  # before it closes what they would miss
            first = self.cluster_environment.node_rank() * self.num_processes + 1
            watch = _Watch(self.procs, first=first, timeout=self._timeout)
            watch.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **options)
        except StopRequested:
            _kill(self.procs)  # before they say that this one is gone
            raise
        except Exception as error:
            if reason := lost_rank(error):
                raise UserError(reason) from error
            raise
        finally:
            if watch is not None:
                watch.training_over.set()


class _Watch(threading.Thread):
    """Looks at launched ranks, and ends this one where one of them is lost.

    Args:
        launched: the ranks.
        first: number of the first of them.
        timeout: seconds that one may be stopped.
    """

    def __init__(self, launched: list[subprocess.Popen[bytes]], *, first: int, timeout: float):
        super().__init__(daemon=True, name="rank-watch")
        self.training_over = threading.Event()
        self.reason: str | None = None
        self._launched = list(enumerate(launched, first))
        self._timeout = timeout
        _watches.add(self)

    def run(self) -> None:
        stopped = 0.0
        while any(process.poll() != 0 for _, process in self._launched):
            time.sleep(_GLANCE)
            reason = self.look()
            stopped = stopped + _GLANCE if reason and "stopped" in reason else 0.0
            if reason and not 0 < stopped < self._timeout:
                self._end(reason)
                return

    def look(self) -> str | None:
        """Say which rank is lost, if one is."""
        for number, process in self._launched:
            name = f"rank {number} (process {process.pid})"
            if status := process.poll():
                said = "; what it printed says why" if status > 0 else ""
                return f"{name} {how_ended(status)}{said}; {_CONTINUES}"
            if is_stopped(process.pid):
                return f"{name} is stopped (SIGSTOP); {_CONTINUES}"
        return None

    def _end(self, reason: str) -> None:
        self.reason = reason
        _kill([process for _, process in self._launched])
        # Who waits for them is told by an error, as a rule.
        if not self.training_over.wait(_PATIENCE):
            write_stderr(f"error: {reason}")
            report_failure(reason)
            os._exit(2)


def lost_rank(error: BaseException) -> str | None:
    """Say why a collective failed: which rank is lost; ``None`` where another error is the cause.

    Example:
        >>> lost_rank(ValueError("a fault")) is None
        True
    """
    of_gloo = any(words in str(error) for words in ("/gloo/", "timeout caused pair closure"))
    if not of_gloo and not isinstance(error, torch.distributed.DistError):
        return None
    deadline = time.monotonic() + 3 * _GLANCE  # a connection is closed before a process ends
    while _watches and time.monotonic() < deadline:
        for watch in _watches:
            if reason := watch.reason or watch.look():
                return reason
        time.sleep(_GLANCE / 10)
    launcher = processes.followed
    if launcher is not None and is_stopped(launcher):
        reason = f"rank 0 (process {launcher}) is stopped (SIGSTOP); {_CONTINUES}"
        write_stderr(f"error: {reason}")
        os.kill(launcher, signal.SIGKILL)  # and this process with it
    return (
        f"rank {rank()} lost another rank, which has ended, or did not answer within "
        f"trainer.timeout; what that one printed says why; {_CONTINUES}"
    )


def _kill(launched: list[subprocess.Popen[bytes]]) -> None:
    for process in launched:
        process.kill()
