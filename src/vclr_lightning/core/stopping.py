"""SIGTERM, Ctrl-C and SIGUSR1: which handler answers them, and how they end a process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)
"""SLURM sends SIGUSR1 before a job's time is up."""

KILL: signal.Signals = getattr(signal, "SIGKILL", signal.SIGTERM)
"""What ends a process at once; on Windows SIGTERM does."""

_SAME = 1.0  # seconds within which a repeated signal is the same request
_held: list[int] | None = None  # signals that arrived while processes were being started


class StopRequested(SystemExit):
    """A signal asked the process to stop; ends it with the signal's status.

    The status is 128 + the signal's number (143 for SIGTERM, 130 for Ctrl-C), and 0 on processes
    launched by the trainer, which would take their failure for a crash.

    Example:
        >>> StopRequested(signal.SIGTERM).code, str(StopRequested(signal.SIGTERM))
        (143, 'SIGTERM')
    """

    def __init__(self, signum: int, *, local_rank: int = 0) -> None:
        super().__init__(128 + signum if local_rank == 0 else 0)
        self.signum = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name


class SignalHandler:
    """Handles :data:`SIGNALS` from :meth:`install` to :meth:`restore`, in the main thread.

    Args:
        first: called with the number of the first signal.
        abort: called with that of the second; then the process ends at once.

    Attributes:
        received: number of the first signal; 0 before it.
    """

    def __init__(
        self, first: Callable[[int], None], abort: Callable[[int], None] = lambda _: None
    ) -> None:
        self.received = 0
        self._first, self._abort = first, abort
        self._last = -_SAME
        self._pid = -1
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> bool:
        """Handle signals from now on; false outside the main thread, which gets none in Python."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._pid = os.getpid()
        self._before = {signum: signal.signal(signum, self._handle) for signum in SIGNALS}
        return True

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # inherited by a forked process
            os._exit(128 + signum)
        if _held is not None:
            _held.append(signum)
            return
        now, last = time.monotonic(), self._last
        self._last = now
        if not self.received:
            self.received = signum
            self._first(signum)
        # A signal to a process group arrives once more from a parent that forwards it.
        elif signum != self.received or now - last > _SAME:
            self._abort(signum)
            os._exit(128 + signum)


@contextmanager
def stopped_by_signals(then: str, *, leader: int | None = None) -> Iterator[None]:
    """Raise :class:`StopRequested` on a signal within the block; a second one ends at once.

    Args:
        then: advice in the message.
        leader: the process that started this one as its rank; it gets the signal and ends both, as
            it might wait for this rank without handling signals.
    """

    def stop(signum: int) -> None:
        if leader is not None:
            os.kill(leader, signum)
            return
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if rank == 0:
            write_stderr(f"stopped by {signal.Signals(signum).name}; {then}")
        raise StopRequested(signum, local_rank=rank)

    handler = SignalHandler(stop)
    handler.install()
    try:
        yield
    finally:
        handler.restore()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Start processes within the block that never get :data:`SIGNALS`.

    A signal to the whole process group is then the parent's alone, which ends its children. It is
    handled after the block, when the parent knows all processes that it has started.
    """
    global _held
    before = block_signals()
    _held = []  # other threads of this process may receive signals
    try:
        yield
    finally:
        held, _held = _held, None
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for signum in held[:1]:
            signal.raise_signal(signum)


def block_signals() -> set[signal.Signals | int] | None:
    """Let this thread, and processes that it starts, get none of :data:`SIGNALS`.

    Returns:
        The signals blocked before; ``None`` on Windows, where nothing happens.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return None
    return {*signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)}


def write_stderr(sentence: str) -> None:
    """Write a line to standard error, safe in a signal handler."""
    os.write(2, f"\n{sentence}\n".encode())
