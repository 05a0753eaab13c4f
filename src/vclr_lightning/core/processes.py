"""Processes that end with their parents, and commands that report why they failed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.stopping import KILL, SignalHandler, StopRequested, write_stderr

PARENT = "VCLR_PARENT"  # the process that started this one, if it is of this package
_FAILURE_FILE = "VCLR_FAILURE_FILE"  # where a command writes why it failed
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGXCPU")
_SIGNALLED = 128  # exit statuses above are those of signals
followed: int | None = None  # the process that started this one, where known
leader: int | None = None  # the same, where this one is a rank of it


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however that ends.

    It would otherwise run for hours, or wait for others until a timeout, and keep its device's
    memory. Linux only; elsewhere nothing happens. The kernel watches the thread that started the
    process: that has to last as long as the process is needed.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, KILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), KILL)


def follow_parent() -> None:
    """End with the process that started this one as its command or its rank, if one did.

    Call it early, before the process starts others.
    """
    global followed, leader
    rank = os.environ.get("LOCAL_RANK", "0") != "0"
    if parent := os.environ.pop(PARENT, None):
        followed = int(parent)
        leader = followed if rank else None
        end_with_parent(followed)
    elif rank:  # of torchrun
        end_with_parent(os.getppid())


def end_with_creator(*, from_main_thread: bool) -> None:
    """End a process of ``multiprocessing`` with the one that created it, however that ends.

    A creating thread that is not the main one may end before its process.
    """
    creator = multiprocessing.parent_process()
    assert creator is not None
    number = creator.pid

    def wait() -> None:
        creator.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    # A stopped process runs no thread. A fork server is the parent, but not the creator.
    if from_main_thread and number == os.getppid():
        end_with_parent(number)


def is_stopped(process: int) -> bool:
    """Whether a process is stopped (SIGSTOP, SIGTSTP); false where that cannot be known."""
    try:
        content = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False
    return content[content.rindex(b")") + 2 :][:1] in (b"T", b"t")


def signal_name(status: int) -> str:
    """Return the name of the signal that ended a process; empty where none did.

    Example:
        >>> signal_name(-9), signal_name(3)
        ('SIGKILL', '')
    """
    try:
        return signal.Signals(-status).name
    except ValueError:
        return ""


def how_ended(status: int) -> str:
    """Describe how a process ended, by its status as in :mod:`subprocess`.

    Example:
        >>> how_ended(3), how_ended(-9)
        ('ended with status 3', 'was killed (SIGKILL), as happens where memory is short')
        >>> how_ended(-11)
        'crashed (SIGSEGV)'
    """
    if status >= 0:
        return f"ended with status {status}"
    name = signal_name(status) or f"signal {-status}"
    if name == "SIGKILL":
        return "was killed (SIGKILL), as happens where memory is short"
    if name == "SIGBUS":
        return "crashed (SIGBUS), as happens where shared memory or a disk is full"
    return f"{'was ended' if name in _FROM_OUTSIDE else 'crashed'} ({name})"


def ended_from_outside(status: int) -> bool:
    """Whether a process was ended by another one, or by the system.

    Example:
        >>> ended_from_outside(-9), ended_from_outside(-11), ended_from_outside(1)
        (True, False, False)
    """
    return signal_name(status) in _FROM_OUTSIDE


def run_command(command: Sequence[str], *, without: Collection[str] = ()) -> None:
    """Run a command to its end, ``without`` some variables, and forward signals to it.

    Raises:
        UserError: the command failed; with its reason, where it used :func:`report_failure`.
        SystemExit: it was ended by a signal that it handled.

    Example:
        >>> run_command([sys.executable, "-c", "pass"])
        >>> run_command([sys.executable, "-c", "raise SystemExit(3)"])
        Traceback (most recent call last):
        vclr_lightning.core.errors.UserError: its command ended with status 3; what it printed \
says why
    """
    kept = {name: value for name, value in os.environ.items() if name not in without}
    running: list[subprocess.Popen[bytes]] = []

    def forward(signum: int) -> None:
        for process in running:
            process.send_signal(signum)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reason"
        own = {_FAILURE_FILE: str(file), PARENT: str(os.getpid())}
        handler = SignalHandler(forward, forward)
        handler.install()
        try:
            running.append(subprocess.Popen(list(command), env={**kept, **own}))
            if handler.received:
                forward(handler.received)
            status = running[0].wait()
        finally:
            handler.restore()
        if signum := handler.received:
            if status <= 0:  # it did not say so itself
                write_stderr(
                    f"stopped by {signal.Signals(signum).name}; the same command continues"
                )
            raise StopRequested(signum)
        if status > _SIGNALLED:
            sys.exit(status)
        if status:
            reason = file.read_text() if file.exists() else ""
            raise UserError(reason or f"its command {how_ended(status)}; what it printed says why")


def report_failure(reason: str) -> None:
    """Report why this process fails to the one that runs it by :func:`run_command`, if any."""
    if file := os.environ.get(_FAILURE_FILE):
        Path(file).write_text(reason)
