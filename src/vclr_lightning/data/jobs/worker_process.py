"""A process that executes pickled calls one after another, and is replaced when it is lost."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol

from vclr_lightning.core.processes import (
    end_with_parent,
    ended_from_outside,
    how_ended,
    is_stopped,
)

TIME_LIMIT = 900.0  # seconds for one file, decoded to its end
_CODE = "import sys; sys.path[:] = {!r}; from {} import serve; serve({}, {})"
_POSIX = hasattr(os, "fork")  # elsewhere no pipe can be passed: calls run in this process
_ATTEMPTS = 3  # at a call whose process is ended from outside
_POLL = 1.0  # seconds
_STOPPED = 10.0  # seconds for which a process may be stopped


class WorkerLostError(Exception):
    """A worker process ended, or was ended, before it returned a result.

    Attributes:
        transient: whether something outside ended it, so that the same call may succeed later.
    """

    def __init__(self, how: str, *, transient: bool = False) -> None:
        super().__init__(how)
        self.transient = transient


class Flag(Protocol):
    """What can be asked as a :class:`threading.Event` can."""

    def is_set(self) -> bool: ...


class WorkerProcess:
    """A process that is started with the first call, and again after it was lost.

    Args:
        killed: set when the results of calls are no longer wanted.
    """

    def __init__(self, killed: Flag) -> None:
        self._killed = killed
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def call(self, content: bytes, limit: float) -> Any:
        """Return the result of a pickled call, which may take ``limit`` seconds.

        Raises:
            WorkerLostError: the process was lost by the call, or several times otherwise.
        """
        if not _POSIX:
            fn, args, kwargs = pickle.loads(content)
            return fn(*args, **kwargs)
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
        """End the process at once, from any thread."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process and close its pipe."""
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
