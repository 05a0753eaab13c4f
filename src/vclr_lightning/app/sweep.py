"""Sweeps: record their jobs, show their table, and run jobs of several processes."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from vclr_lightning.app.explain import explain
from vclr_lightning.app.resolvers import SWEEP_COMMAND
from vclr_lightning.app.sweep_table import (
    Job,
    failure_notes,
    forget_jobs,
    record_job,
    sweep_screen,
    write_table,
)
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import hydra_value
from vclr_lightning.core.processes import run_command
from vclr_lightning.core.reading import read_numbers
from vclr_lightning.core.screen import screen, show

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

_current: list[Path] = []  # folder of the sweep that this process runs


class SweepRecorder(Callback):
    """Hydra's callback that records each job of a sweep as it begins and ends.

    The records are files in the sweep's folder, so launchers may run jobs in other processes.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Announce the sweep; Hydra then composes every job, at about 10 a second."""
        self._folder = Path(config.hydra.sweep.dir).absolute()
        if _is_first():
            sweeper, where = config.hydra.sweeper, quote(str(self._folder))
            params = sweeper.get("params") or {}
            words = [*config.hydra.overrides.task, *(f"{k}={v}" for k, v in params.items())]
            trials = sweeper.get("n_trials")  # of Optuna
            count = _count(words) if trials is None else f"{trials} jobs"
            print(f"sweep of {count} in {where}", file=sys.stderr, flush=True)
            os.environ[SWEEP_COMMAND] = json.dumps(sys.argv[1:])
            forget_jobs(self._folder)
            _current.append(self._folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record a job that has not ended."""
        self._record(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record what the job measured or why it failed, and write the table so far."""
        if self._folder is None or not _is_first():
            return
        if job_return.status is JobStatus.COMPLETED:
            values = read_numbers(Path(config.run_dir) / "result.json")
            self._record(config, values=values, status="done")
        else:
            error: BaseException = job_return._return_value
            reason = explain(error)
            if reason is None:
                reason = f"{type(error).__name__}: {error}"
                logger.error("job %d failed", config.hydra.job.num, exc_info=error)
            else:
                logger.error("job %d failed: %s", config.hydra.job.num, reason)
            _free_memory(error)
            self._record(config, status="failed", reason=" ".join(reason.split()))
        write_table(self._folder)

    def _record(self, config: DictConfig, **values: Any) -> None:
        if self._folder is not None and _is_first():
            number, words = int(config.hydra.job.num), list(config.hydra.overrides.task)
            folder = str(Path(config.run_dir).absolute())
            record_job(self._folder, Job(number=number, overrides=words, folder=folder, **values))


@contextmanager
def sweep_shown(*, tracebacks: bool = False) -> Iterator[None]:
    """Show the table of a sweep that the block runs, however the block ends.

    Where jobs have failed, the process ends with status 2, or with 1 where one was a fault of the
    program and not a mistake in the configuration.

    Args:
        tracebacks: raise the first job's error instead.
    """
    _current.clear()
    ended: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended = error
        raise
    finally:
        failed = _show(_current.pop()) if _current else 0
        if failed and isinstance(ended, Exception) and not tracebacks:
            sys.exit(2 if explain(ended) is not None else 1)


def _show(folder: Path) -> int:
    """Print the table, and why jobs have failed; return how many have."""
    jobs = write_table(folder)
    if not jobs:
        return 0
    width = screen().width
    show(sweep_screen(jobs, width=width), *failure_notes(jobs, width=width))
    show(f"wrote {quote(str(folder / 'sweep.csv'))} and sweep.md, with the jobs' folders")
    failed = [job for job in jobs if job.status == "failed"]
    if failed:
        print(
            f"error: {len(failed)} of {len(jobs)} jobs failed, the first one, "
            f"job {failed[0].number}: {failed[0].reason}",
            file=sys.stderr,
        )
    return len(failed)


def _count(words: Sequence[str]) -> str:
    """Return how many jobs the words of a command make.

    Example:
        >>> _count(["num_segments=1,2,3", "seed=range(2)", "name=mine"]), _count(["seed=1,2"])
        ('6 jobs', '2 jobs')
    """
    number = 1
    for override in OverridesParser.create().parse_overrides(list(words)):
        if override.is_sweep_override():
            if isinstance(override.value(), Glob):  # of a group's options
                return "jobs"
            number *= sum(1 for _ in override.sweep_string_iterator())
    return f"{number} jobs"


def _free_memory(error: BaseException | None) -> None:
    """Free what the frames of a failed job hold, such as device memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def check_sweep(words: Sequence[str]) -> None:
    """Refuse a sweep that would run all its jobs in one folder.

    Args:
        words: of the command line.

    Raises:
        UserError: see above.

    Example:
        >>> check_sweep(["-m", "run_dir=/runs/mine", "num_segments=3,5"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: run_dir=/runs/mine would be the folder of every ...
    """
    if not {"-m", "--multirun"} & set(words):
        return
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "run_dir" and "${" not in value and "," not in value:
            raise UserError(
                f"run_dir={value} would be the folder of every job of the sweep; give name=..., "
                "below which each job gets its own"
            )


def in_sweep() -> bool:
    """Whether this is a sweep's job."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def needs_command(cfg: DictConfig) -> bool:
    """Whether this is a sweep's job of several processes, which would repeat the whole sweep."""
    return in_sweep() and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1)


def run_job(cfg: DictConfig) -> dict[str, float]:
    """Run a sweep's job as a command of its own, and return what it measured.

    Raises:
        UserError: the job failed, and why.
    """
    from vclr_lightning.app.resolvers import group_shared, run_name

    overrides = [*HydraConfig.get().overrides.task, f"name={hydra_value(run_name(cfg.name))}"]
    with group_shared(str(cfg.name)):
        command = [sys.executable, "-m", "vclr_lightning.train", *overrides]
        run_command(command, without=["WANDB_SERVICE"])  # a job that is killed must not hold it
    return read_numbers(Path(cfg.run_dir) / "result.json")
