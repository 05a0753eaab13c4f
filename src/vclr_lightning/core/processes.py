"""Processes that end with those that started them."""

from __future__ import annotations

import sys


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends, however that ends.

    It would go on for hours, or wait for others until a timeout, and keep its device's memory.
    Linux only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
