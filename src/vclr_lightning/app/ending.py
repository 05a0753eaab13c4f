"""How a command ends: its status, and a sentence for whatever ended it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from vclr_lightning.app.explain import report_error
from vclr_lightning.core.launcher import check_rank_variables
from vclr_lightning.core.stopping import StopRequested, stopped_by_signals


def run_reported(run: Callable[[], int]) -> int:
    """Return what ``run`` does; for a mistake or a signal say a sentence and return its status."""
    try:
        with stopped_by_signals("the same command continues"):
            check_rank_variables(os.environ)
            status = run()
            sys.stdout.flush()
            return status
    except StopRequested as stop:
        return 128 + stop.signum
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads our output, such as `head`, has exited
        _drop_output()
        return 141
    except Exception as error:
        known = None if os.environ.get("VCLR_TRACEBACKS") == "1" else report_error(error)
        if known is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:  # a full disk
            _drop_output()
        return known


def _drop_output() -> None:
    """Discard what is left to print, which would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
