"""Executors of :mod:`concurrent.futures` for work on files: processes that may crash or hang."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from vclr_lightning.core.processes import (
    end_with_parent,
    ended_from_outside,
    how_ended,
    is_stopped,
)
from vclr_lightning.core.stopping import SIGNALS

TIME_LIMIT = 900.0  # seconds for one file, decoded to its end
_CODE = "import sys; sys.path[:] = {!r}; from {} import serve; serve({}, {})"
_ATTEMPTS = 3  # at a call whose process is ended from outside
_POLL = 1.0  # seconds
_STOPPED = 10.0  # seconds for which a process may be stopped

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerLostError(Exception):
    """A worker process ended, or was ended, before it returned a result.

    Attributes:
        transient: whether something outside ended it, so that the same call may succeed later.
    """

    def __init__(self, how: str, *, transient: bool = False) -> None:
        super().__init__(how)
        self.transient = transient


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
        limit: seconds that a call may take, or a function of the call's arguments that returns it.
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
        limit: float | Callable[..., float] = TIME_LIMIT,
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
        self._processes: list[_WorkerProcess] = []
        self._shut = False
        self._killed = threading.Event()

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Schedule ``fn(*args, **kwargs)``; see :meth:`concurrent.futures.Executor.submit`."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Result] = Future()
        limit = self._limit(*args, **kwargs) if callable(self._limit) else self._limit
        self._calls.put((future, pickle.dumps((fn, args, kwargs)), limit))
        started = len(self._threads)
        if started < self._workers and self._submitted >= started * self._calls_per_process:
            self._processes.append(_WorkerProcess(self._killed))
            # The kernel ends a process with the thread that started it, see `end_with_parent`.
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

    def _run(self, process: _WorkerProcess) -> None:
        # Processes that this thread starts ignore a signal to the process group.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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


class _WorkerProcess:
    """A process that is started with the first call, and again after it was lost."""

    def __init__(self, killed: threading.Event) -> None:
        self._killed = killed
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def call(self, content: bytes, limit: float) -> Any:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._call(content, limit)
            except WorkerLostError as lost:
                self.close()
                if not lost.transient or self._killed.is_set():
                    raise
                if attempt == _ATTEMPTS:
                    how = f"the process that reads it {lost}, {attempt} times"
                    raise WorkerLostError(how, transient=True) from lost
        raise AssertionError

    def _call(self, content: bytes, limit: float) -> Any:
        is_new = self._process is None
        process, pipe = self._start() if is_new else (self._process, self._pipe)
        assert process is not None
        assert pipe is not None
        with contextlib.suppress(OSError):  # if it died, its answer says so
            pipe.send_bytes(content)
        try:
            succeeded, result = self._receive(process, pipe, TIME_LIMIT)
        except WorkerLostError as lost:
            if is_new and not lost.transient:
                raise RuntimeError(
                    "a process that reads videos did not start; to see why, run: "
                    f'{sys.executable} -c "import {__name__}"'
                ) from lost
            raise
        if succeeded:  # the time of imports does not count
            succeeded, result = self._receive(process, pipe, limit)
        if not succeeded:
            raise result
        return result

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        pipe, end = Pipe()
        with end:
            code = _CODE.format(sys.path, __name__, end.fileno(), os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[end.fileno()],
            )
        self._pipe = pipe
        return self._process, pipe

    def _receive(
        self, process: subprocess.Popen[bytes], pipe: Connection, limit: float
    ) -> tuple[bool, Any]:
        """Return whether the call (or its import) succeeded, and its result or error."""
        waited = stopped = 0.0
        # Polls, not a deadline: it would have passed where this process itself was stopped.
        while not pipe.poll(_POLL):
            waited += _POLL
            stopped = stopped + _POLL if is_stopped(process.pid) else 0.0
            if self._killed.is_set() or stopped >= _STOPPED:
                raise WorkerLostError("was stopped (SIGSTOP)", transient=True)
            if waited >= limit:
                raise WorkerLostError(f"takes longer than {limit:g} s to read")
        try:
            content = pipe.recv_bytes()
        except (EOFError, OSError):
            code = process.wait()
            if ended_from_outside(code):
                raise WorkerLostError(how_ended(code), transient=True) from None
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            raise WorkerLostError(f"the decoder crashed ({how})") from None
        answer: tuple[bool, Any] = pickle.loads(content)
        return answer

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        if self._pipe is not None:
            self._pipe.close()


def serve(descriptor: int, parent: int) -> None:
    """Execute the calls that come through a pipe, as a process of :class:`LocalProcesses`."""
    end_with_parent(parent)
    pipe = Connection(descriptor)
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        try:
            fn, args, kwargs = pickle.loads(content)
            pipe.send((True, None))
            answer = pickle.dumps((True, fn(*args, **kwargs)))
        except Exception as error:
            answer = pickle.dumps((False, error))
        pipe.send_bytes(answer)
