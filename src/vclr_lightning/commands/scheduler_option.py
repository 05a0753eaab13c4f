"""The option ``--scheduler`` of the commands that work on many files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor


def add_scheduler_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--scheduler``."""
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="work on the cluster of this Dask scheduler, such as tcp://HOST:8786 or the file that "
        "`dask scheduler --scheduler-file` writes, instead of on this machine alone",
    )


@contextmanager
def workers_of(args: argparse.Namespace) -> Iterator[Executor | None]:
    """Yield the executor that ``--scheduler`` names; ``None`` for processes of this machine.

    Raises:
        UserError: see :class:`~vclr_lightning.data.jobs.dask_workers.DaskWorkers`; or
            ``--workers`` is given as well.
    """
    if args.scheduler is None:
        yield None
        return
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.data.jobs.dask_workers import DaskWorkers

    if args.workers is not None:
        raise UserError(
            "--workers counts processes of this machine, and --scheduler has workers of its own; "
            "leave one out"
        )
    with DaskWorkers(args.scheduler) as executor:
        yield executor
