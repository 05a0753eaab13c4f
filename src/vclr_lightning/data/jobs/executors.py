"""Executors of :mod:`concurrent.futures` for work on files: processes that may crash or hang."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from vclr_lightning.core.stopping import block_signals
from vclr_lightning.data.jobs.worker_process import TIME_LIMIT, WorkerProcess

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SerialExecutor(Executor):
    """Runs each call at once in this process.

    Example:
        >>> SerialExecutor().submit(max, 1, 2).result()
        2
    """

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Return a finished future; only what ends a process is raised here."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalProcesses(Executor):
    """Runs calls in processes of this machine, each of which a call may crash or hang.

    Unlike :class:`~concurrent.futures.ProcessPoolExecutor`, a lost process fails the one call that
    it was executing: with a :class:`WorkerLostError` if the call crashed it or exceeded the time
    limit; a process that was killed or stopped from outside is replaced first, and the call
    repeated. Scripts need no ``__main__`` guard. Functions must be importable, and arguments and
    results picklable.

    Args:
        workers: number of processes; each is started when there are calls for it.
        limit: seconds that a call may take, unless its function has an attribute ``limit``.
        calls_per_process: calls that justify starting one more process.

    Example:
        >>> with LocalProcesses(1) as executor:
        ...     executor.submit(max, 1, 2).result()
        2
    """

    def __init__(
        self,
        workers: int,
        *,
        limit: float = TIME_LIMIT,
        calls_per_process: int = 1,
    ) -> None:
        self._workers = workers
        self._limit = limit
        self._calls_per_process = calls_per_process
        self._calls: queue.SimpleQueue[tuple[Future[Any], bytes, float] | None] = (
            queue.SimpleQueue()
        )
        self._submitted = 0
        self._threads: list[threading.Thread] = []
        self._processes: list[WorkerProcess] = []
        self._shut = False
        self._killed = threading.Event()

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Schedule ``fn(*args, **kwargs)``; see :meth:`concurrent.futures.Executor.submit`."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Result] = Future()
        limit = getattr(fn, "limit", None) or self._limit
        self._calls.put((future, pickle.dumps((fn, args, kwargs)), limit))
        started = len(self._threads)
        if started < self._workers and self._submitted >= started * self._calls_per_process:
            self._processes.append(WorkerProcess(self._killed))
            # The kernel ends a process with the thread that started it: `end_with_parent`.
            thread = threading.Thread(target=self._run, args=self._processes[-1:], daemon=True)
            self._threads.append(thread)
            thread.start()
        self._submitted += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: after the submitted calls or, with ``cancel_futures``, at once."""
        self._shut = True
        if cancel_futures:
            self._killed.set()
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _run(self, process: WorkerProcess) -> None:
        # Processes that this thread starts ignore a signal to the process group.
        block_signals()
        with contextlib.closing(process):
            while (call := self._calls.get()) is not None:
                future, content, limit = call
                if self._killed.is_set():
                    future.cancel()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(process.call(content, limit))
                except Exception as error:
                    future.set_exception(error)
