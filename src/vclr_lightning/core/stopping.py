"""SIGTERM, Ctrl-C and SIGUSR1: who answers them, and how a process ends by them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
)  # SIGUSR1: of SLURM, before the time is up
_SAME = 1.0  # seconds within which a signal that comes again is the same request
_held: list[int] | None = None  # signals that wait until processes have been started


class StopRequested(SystemExit):
    """A signal asked the process to stop; ends it with the signal's status.

    The status is 128 + the signal's number (143 for SIGTERM, 130 for Ctrl-C), and 0 on processes
    that the trainer launched itself, whose failure it would take for a crash.

    Example:
        >>> StopRequested(signal.SIGTERM).code
        143
    """

    def __init__(self, signum: int, *, local_rank: int = 0) -> None:
        super().__init__(128 + signum if local_rank == 0 else 0)
        self.signum = signum


class SignalAnswer:
    """Answers SIGTERM and Ctrl-C from :meth:`take` to :meth:`give_back`, in the main thread.

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

    def take(self) -> bool:
        """Answer from now on; false outside the main thread, which Python gives no signals."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._pid = os.getpid()
        self._before = {signum: signal.signal(signum, self._answer) for signum in SIGNALS}
        return True

    def give_back(self) -> None:
        """Let those answer who did before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _answer(self, signum: int, frame: FrameType | None) -> None:
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
        # A signal to a process group comes once more from a parent that passes it on.
        elif signum != self.received or now - last > _SAME:
            self._abort(signum)
            os._exit(128 + signum)


@contextmanager
def stopped_by_signals(then: str, *, leader: int | None = None) -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C raise :class:`StopRequested`; a second one ends at once.

    Args:
        then: what the user can do then, for the sentence that says so.
        leader: the process that started this one as its rank, which is sent the signal and ends
            both. If a rank ended by itself, its leader could be waiting for it, deaf to signals.
    """

    def stop(signum: int) -> None:
        if leader is not None:
            os.kill(leader, signum)
            return
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if rank == 0:
            say(f"stopped by {signal.Signals(signum).name}; {then}")
        raise StopRequested(signum, local_rank=rank)

    answer = SignalAnswer(stop)
    answer.take()
    try:
        yield
    finally:
        answer.give_back()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that this thread starts within it never get SIGTERM and Ctrl-C.

    A signal to the whole process group is then for the parent alone to answer, which ends them. It
    does so afterwards, when it knows of all that it has started.
    """
    global _held
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _held = []  # other threads of this process may take signals
    try:
        yield
    finally:
        held, _held = _held, None
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for signum in held[:1]:
            signal.raise_signal(signum)


def say(sentence: str) -> None:
    """Write a line to standard error, from a signal's handler as well."""
    os.write(2, f"\n{sentence}\n".encode())
