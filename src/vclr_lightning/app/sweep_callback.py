"""Hydra's callback that notes what becomes of a sweep's jobs, and the end of a sweep."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback

from vclr_lightning.app.explain import explain
from vclr_lightning.app.sweep_table import Job, forget, note, read_jobs
from vclr_lightning.core.reading import read_numbers

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

_begun: list[Path] = []  # the folder of the sweep that this process runs


class SweepNotes(Callback):
    """Notes each job of a sweep as it begins and as it ends; single runs are left alone.

    The notes are files in the sweep's folder, so launchers may run jobs in other processes.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder."""
        self._folder = Path(config.hydra.sweep.dir).absolute()
        if _is_first():
            jobs = _count([*config.hydra.overrides.task, *_params(config)])
            # Before Hydra composes every job's configuration, at about 10 a second.
            print(f"sweep of {jobs} in {quote(str(self._folder))}", file=sys.stderr, flush=True)
            forget(self._folder)
            _begun.append(self._folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note a job as one that has not ended."""
        if self._folder is not None and _is_first():
            note(self._folder, _job(config))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note what became of it, and write the table as it stands."""
        if self._folder is None or not _is_first():
            return
        job = _job(config)
        if job_return.status is JobStatus.COMPLETED:
            values = _measured(Path(job.folder))
            job = _job(config, values=values, status="done")
        else:
            error: BaseException = job_return._return_value
            reason = explain(error)
            if reason is None:
                logger.error("job %d failed", job.number, exc_info=error)
                reason = f"{type(error).__name__}: {error}"
            else:
                logger.error("job %d failed: %s", job.number, reason)
            _let_go(error)
            job = _job(config, status="failed", reason=" ".join(reason.split()))
        note(self._folder, job)
        read_jobs(self._folder).write(self._folder)


@contextmanager
def sweep_shown(*, tracebacks: bool = False) -> Iterator[None]:
    """Show the table of the sweep that the block runs, if it does, however the block ends.

    Where jobs have failed, the process ends with status 2, or with 1 where one was the program's
    fault and not a mistake in the configuration.

    Args:
        tracebacks: let the first job's error through instead.
    """
    _begun.clear()
    ended: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended = error
        raise
    finally:
        failed = _show(_begun.pop()) if _begun else 0
        if failed and isinstance(ended, Exception) and not tracebacks:
            sys.exit(2 if explain(ended) is not None else 1)


def _show(folder: Path) -> int:
    """Print the table and return how many jobs have failed."""
    from vclr_lightning.core.screen import show

    table = read_jobs(folder)
    if not table.jobs:
        return 0
    files = table.write(folder)
    show(table.table(), f"wrote {quote(str(files[0]))} and {files[1].name}")
    if table.failed:
        first = table.failed[0]
        print(
            f"error: {len(table.failed)} of {len(table.jobs)} jobs failed, the first one, "
            f"job {first.number}: {first.reason}",
            file=sys.stderr,
        )
    return len(table.failed)


def _params(config: DictConfig) -> list[str]:
    """Sweeps of a configuration, as words of a command."""
    return [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]


def _count(words: Sequence[str]) -> str:
    """Say how many jobs the words of a command make.

    Example:
        >>> _count(["num_segments=1,2,3", "seed=range(2)", "name=mine"]), _count(["seed=1,2"])
        ('6 jobs', '2 jobs')
    """
    number = 1
    for override in OverridesParser.create().parse_overrides(list(words)):
        if override.is_sweep_override():
            if isinstance(override.value(), Glob):  # of the options that there are
                return "jobs"
            number *= sum(1 for _ in override.sweep_string_iterator())
    return f"{number} jobs"


def _job(config: DictConfig, **values: Any) -> Job:
    return Job(
        number=int(config.hydra.job.num),
        overrides=list(config.hydra.overrides.task),
        folder=str(Path(config.run_dir).absolute()),
        **values,
    )


def _measured(folder: Path) -> dict[str, float]:
    return read_numbers(folder / "result.json")


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed job hold: the memory of a device among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
