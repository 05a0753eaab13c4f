"""``python -m vclr_lightning.train``: run what the configuration and the command line describe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Commands that a run starts are to do as it does, whose own setting is changed below.
_ASKED = "VCLR_TRACEBACKS"
_TRACEBACKS = os.environ.get(_ASKED, os.environ.get("HYDRA_FULL_ERROR")) == "1"


@contextmanager
def _mistakes_explained() -> Iterator[None]:
    """End a user's mistake with one sentence and status 2, a fault of code with status 1 and its
    traceback."""
    try:
        yield
    except Exception as error:
        from vclr_lightning.app.explain import explain
        from vclr_lightning.core.errors import CodeFault, harmless

        if isinstance(error, CodeFault) and not _TRACEBACKS:
            print(f"error: {harmless(error.report())}", file=sys.stderr)
            sys.exit(1)
        sentence = explain(error)
        if sentence is None or _TRACEBACKS:
            raise
        print(f"error: {harmless(sentence)}", file=sys.stderr)
        sys.exit(2)


def _task(cfg: DictConfig) -> float | None:
    from vclr_lightning.app.sweep import failure_told, in_sweep, needs_command, run_job

    # A job that fails is noted, and the sweep goes on with the next.
    with nullcontext() if in_sweep() else _mistakes_explained(), failure_told():
        if needs_command(cfg):
            return run_job(cfg).get("best")
        from vclr_lightning.app.run import run

        return run(cfg).get("best")


def main() -> None:
    """Run; HYDRA_FULL_ERROR=1 shows tracebacks, as everywhere in Hydra."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        from vclr_lightning.app.usage import usage

        print(usage(), end="")
        return
    from vclr_lightning.core import processes
    from vclr_lightning.core.launcher import check_numbers
    from vclr_lightning.core.stopping import stopped_by_signals

    with _mistakes_explained():
        check_numbers(os.environ)
    processes.follow_parent()
    with stopped_by_signals("the same command continues", leader=processes.leader):
        _run_hydra()


def _run_hydra() -> None:
    import logging

    import hydra

    from vclr_lightning.app.sweep import check_sweep, failure_told
    from vclr_lightning.app.sweep_callback import sweep_shown
    from vclr_lightning.core.overrides import readable

    logging.raiseExceptions = False  # a line of the log that a full disk refuses is no traceback
    os.environ[_ASKED] = str(int(_TRACEBACKS))
    # Hydra then hands its own errors on, instead of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with _mistakes_explained(), failure_told(), sweep_shown(tracebacks=_TRACEBACKS):
        sys.argv[1:] = readable(sys.argv[1:])
        check_sweep(sys.argv[1:])
        hydra.main(
            version_base="1.3", config_path="pkg://vclr_lightning.conf", config_name="config"
        )(_task)()


if __name__ == "__main__":
    main()
