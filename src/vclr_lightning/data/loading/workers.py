"""Worker processes: how many, how started, and how they end."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal

from torch.utils.data._utils import signal_handling

from vclr_lightning.core.distributed import rank, world_size
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.processes import how_ended, is_stopped, report_failure, signal_name
from vclr_lightning.core.stopping import write_stderr

StartMethod = Literal["fork", "spawn", "forkserver"]

_GLANCE = 1.0  # seconds
_PATIENCE = 10.0  # seconds for workers to end by themselves
_SCARCE = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_CONTINUES = "the same command continues"
_FEWER = f"give fewer data.num_workers or a smaller data.prefetch_factor; {_CONTINUES}"
_SLOW = "where a video or the disk may take that long, give a larger data.timeout"
_ADVICE = {
    "SIGKILL": _FEWER,
    "SIGBUS": f"give docker run a larger --shm-size, or data.num_workers=0; {_CONTINUES}",
    "SIGSEGV": "a video may be what crashes the decoder: `vclr index --decode` finds it",
}


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How samples are loaded; none of it changes what is loaded.

    Attributes:
        num_workers: loading processes; 0 loads in the training process.
        start_method: how they are started; ``None`` for the system's default.
        prefetch_factor: batches that each worker loads ahead.
        pin_memory: whether batches are put into page-locked memory.
        persistent: whether workers stay for the next epoch.
        timeout: seconds that a batch may take before stuck workers are ended.

    Raises:
        UserError: a number is too small, or the start method is unknown.
    """

    num_workers: int = 0
    start_method: StartMethod | None = None
    prefetch_factor: int = 2
    pin_memory: bool = False
    persistent: bool = True
    timeout: float = 1200.0

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("prefetch_factor", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        if not self.timeout > 0:
            raise UserError(f"timeout={self.timeout} must be above 0 seconds")
        methods = multiprocessing.get_all_start_methods()
        if self.start_method is not None and self.start_method not in methods:
            known = " or ".join(methods)
            raise UserError(f"start_method={self.start_method!r} is unknown; take {known}")


def default_num_workers(processes: int = 1) -> int:
    """Return the cores for each of ``processes`` on this machine, less one for itself."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return max(1, cores // processes - 1)


class WorkerWatch(threading.Thread):
    """Ends a wait for workers that have died, or that takes too long, with an error message.

    Args:
        iterators: whose workers are waited for; may grow.
        timeout: seconds that a wait may take, not counting those in which this process is stopped
            or the machine asleep.
    """

    def __init__(self, iterators: list[Any], timeout: float) -> None:
        super().__init__(daemon=True, name="worker-watch")
        self._iterators, self._timeout = iterators, timeout
        self._begun = self._ended = 0
        self._over = threading.Event()
        self._reason: str | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Watch a block that waits for workers.

        Raises:
            UserError: they have died, or it took too long.
        """
        self._begun += 1
        try:
            yield
        except Exception as error:
            # A dying process closes what it holds before it counts as ended.
            workers = {worker.sentinel: worker for worker in self._workers()}
            for ending in wait(workers, timeout=_GLANCE):
                workers[ending].join(_GLANCE)
            reason = self._reason or self._death()
            if isinstance(error, OSError) and error.errno in _SCARCE:
                reason = f"loading processes cannot be started: {error.strerror}; {_FEWER}"
            if reason is None:
                raise
            raise UserError(reason) from error
        finally:
            self._ended += 1

    def close(self) -> None:
        """End the watch."""
        self._over.set()

    def run(self) -> None:
        number, waited = 0, 0.0
        # Seconds are counted, since a deadline would pass while this process is stopped.
        while not self._over.wait(_GLANCE):
            waited = waited + _GLANCE if number == self._begun != self._ended else 0.0
            number = self._begun
            # Torch notices a death by itself, unless the worker died while sending.
            late = waited >= self._timeout
            death = self._death() if late or waited >= _PATIENCE else None
            if death or late:
                self._reason = death or self._delay()
                _kill(self._workers())  # which raises an error in the waiting thread
                if not self._over.wait(_PATIENCE):  # unless it waits for the rest of a message
                    write_stderr(f"error: {self._reason}")
                    report_failure(self._reason)
                    os._exit(2)
                return

    def _workers(self) -> list[Any]:
        return [worker for iterator in self._iterators for worker in iterator._workers]

    def _death(self) -> str | None:
        for name, worker in self._named():
            if (status := worker.exitcode) is not None:
                return f"{name} {how_ended(status)}; {_ADVICE.get(signal_name(status), _CONTINUES)}"
        return None

    def _delay(self) -> str:
        stopped = [name for name, worker in self._named() if is_stopped(worker.pid)]
        why = f"{stopped[0]} is stopped (SIGSTOP)" if stopped else _SLOW
        return f"no batch was loaded within data.timeout={self._timeout:g} s: {why}; {_CONTINUES}"

    def _named(self) -> Iterator[tuple[str, Any]]:
        workers = self._workers()
        of = f"rank {rank()}, " if world_size() > 1 else ""
        for number, worker in enumerate(workers, 1):
            yield f"{of}loading process {number} of {len(workers)} (process {worker.pid})", worker


def expect_deaths(iterator: Any) -> None:
    """Keep torch from raising an error at a random place when a worker dies."""
    if iterator._worker_pids_set:
        iterator._worker_pids_set = False
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]


def stop_workers(iterators: list[Any]) -> None:
    """End the workers of these iterators, also those that are stuck; at exit at the latest.

    At exit, Python would send them a SIGTERM, which is blocked, and wait for them.
    """
    while iterators:
        iterator = iterators.pop()
        workers = iterator._workers
        expect_deaths(iterator)
        if any(worker.exitcode is not None or is_stopped(worker.pid) for worker in workers):
            _kill(workers)
        # A worker that was killed may hold a lock that torch would wait for.
        polite = threading.Thread(target=iterator._shutdown_workers, daemon=True)
        with suppress(RuntimeError):  # no thread begins when the interpreter ends
            polite.start()
            polite.join(_PATIENCE)
        _kill(workers)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()
