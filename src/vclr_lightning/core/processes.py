"""Processes that end with those that started them, and commands that say why they failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError

_TELL = "VCLR_FAILURE_FILE"  # where a command is to write why it failed
_SIGNALLED = 128  # statuses from here on are those of signals


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends, however that ends.

    It would go on for hours, or wait for others until a timeout, and keep its device's memory.
    Linux only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def run_command(command: Sequence[str], *, without: Collection[str] = ()) -> None:
    """Run a command to its end; signals are its to answer.

    Args:
        command: program and arguments.
        without: variables of the environment that it is not to have.

    Raises:
        UserError: the command failed, and why, where it used :func:`tell_failure`.
        SystemExit: it was ended by a signal that it answered.

    Example:
        >>> run_command([sys.executable, "-c", "pass"])
        >>> run_command([sys.executable, "-c", "raise SystemExit(3)"])
        Traceback (most recent call last):
        vclr_lightning.core.errors.UserError: its command ended with status 3; what it printed \
says why
    """
    kept = {name: value for name, value in os.environ.items() if name not in without}
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "reason"
        process = subprocess.Popen(list(command), env={**kept, _TELL: str(told)})
        before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),  # reaches it by itself
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        }
        try:
            status = process.wait()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if status > _SIGNALLED:
            sys.exit(status)
        if status:
            raise UserError((told.read_text() if told.exists() else "") or _ended(status))


def tell_failure(reason: str) -> None:
    """Tell whoever runs this process by :func:`run_command`, if anyone does, why it fails."""
    if file := os.environ.get(_TELL):
        Path(file).write_text(reason)


def _ended(status: int) -> str:
    """How a command ended that did not say why."""
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"its command ended with {how}; what it printed says why"
