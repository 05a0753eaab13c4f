"""Weights & Biases, continued where a run stopped."""

from __future__ import annotations

import csv
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningWandbLogger, rank_zero_only
from vclr_lightning.loggers.continued import RunMarks, tag_list
from vclr_lightning.loggers.directions import Direction, direction_of, directions
from vclr_lightning.loggers.wandb_files import ARTIFACTS, last_written_step, upload_weights

logger = logging.getLogger(__name__)

_PLOTTED = 50  # classes of an interactive confusion matrix
_INTERRUPT = 2  # SIGINT
_KILLED = 255  # W&B's status of a run that the user interrupted


class WandbLogger(LightningWandbLogger):
    """Logs to one W&B run per folder, online or offline, and continues it on resume.

    The run's id is stored in ``wandb_id`` in the folder. Steps that W&B already has are not sent
    again, so a run that was stopped and continued shows one history; rows that a kill has lost are
    sent from the folder's ``metrics.csv``, where there is one. Offline needs no account;
    ``wandb sync`` uploads the folder later. A run that begins while the server cannot be reached is
    written offline. Under ``wandb agent`` the run is the sweep's.

    Each metric is defined when it is first logged: whether more or less of it is better, which the
    summary's ``max`` or ``min`` keeps, and whether it is drawn over steps or epochs; see
    :data:`~vclr_lightning.loggers.directions.DIRECTIONS`. The summary's ``state`` is ``running``,
    ``finished``, ``stopped`` or ``failed``.

    Args:
        directory: the run's folder, which W&B's files are written below.
        project: W&B project.
        name: displayed name of the run; by default the folder's.
        offline: write files only.
        entity: user or team that the project belongs to.
        group: runs displayed together.
        job_type: kind of run within a group.
        tags: labels, as a list or a line; W&B takes 64 characters of each.
        metrics: directions of further metrics by pattern, such as
            ``{"mine/*": {"goal": "max", "axis": "epoch"}}``.
        artifacts: files to upload when the run ends: ``"backbone"`` for the exported networks,
            ``"checkpoint"`` for all that resuming needs; with the aliases ``last`` and ``best``.

    Raises:
        UserError: an argument is impossible; W&B is not installed, refuses the run, or there is no
            account.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        project: str = "vclr",
        name: str | None = None,
        offline: bool = False,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | str | None = None,
        metrics: Mapping[str, Mapping[str, str]] | None = None,
        artifacts: str | None = None,
    ) -> None:
        if artifacts is not None and artifacts not in ARTIFACTS:
            raise UserError(f"artifacts={artifacts} must be backbone, checkpoint or null")
        self._directions = directions(metrics or {})
        folder = Path(directory).absolute()  # W&B's process may have another working directory
        self._marks = RunMarks(folder, "wandb")
        self._artifacts = artifacts
        self._defined: set[str] = set()
        self._skip_through = -1
        in_sweep = "WANDB_SWEEP_ID" in os.environ  # of `wandb agent`, which names the run
        try:
            super().__init__(
                name=None if in_sweep else name or folder.name,
                save_dir=folder,
                id=os.environ.get("WANDB_RUN_ID") if in_sweep else self._run_id(),
                project=project,
                offline=offline,
                entity=entity,
                group=group,
                job_type=job_type,
                tags=[tag[:64] for tag in tag_list(tags)] or None,
                settings=_settings(),
            )
        except ImportError as error:
            raise UserError("logger=wandb needs W&B; give `pip install wandb`") from error
        self._wandb_init.pop("anonymous", None)  # Lightning's, which W&B warns about
        if in_sweep:
            for key in ("id", "project", "entity"):
                self._wandb_init.pop(key)

    @property
    def experiment(self) -> Any:
        """The ``wandb.Run``."""
        if self._experiment is None and is_rank_zero():
            Path(self.save_dir or ".").mkdir(parents=True, exist_ok=True)
            import wandb

            if wandb.run is not None and wandb.run.id != self._id:
                wandb.finish()  # of a sweep's job before this one
            self._experiment = run = self._begin(wandb)
            self._offline = run.settings.mode in ("offline", "dryrun")
            # Offline, W&B does not report it; the last row is sent again, in case it was not whole.
            files = self._marks.folder / "wandb"
            written = last_written_step(files) - 1 if self._offline else -1
            self._skip_through = max(run.step - 1, written)
            run.summary.update({"state": "running", "reason": ""})
        return self._experiment

    def _begin(self, wandb: Any) -> Any:
        try:
            return wandb.init(**self._wandb_init, mode="offline" if self._offline else None)
        except wandb.errors.UsageError as error:
            raise UserError(
                "W&B cannot start without an account; log in with `wandb login`, or use"
                " logger.wandb.offline=true, or logger=csv"
            ) from error
        except wandb.errors.CommError as error:
            text = " ".join(str(error).split())
            if "returned error 4" in text:
                raise UserError(
                    f"W&B refuses the run: {text}; check logger.wandb.entity and "
                    "logger.wandb.project, or use logger.wandb.offline=true"
                ) from error
            logger.warning("W&B cannot be reached, so this run is written offline (%s)", text[:200])
            wandb.teardown()  # which still holds the run's id
            return wandb.init(**self._wandb_init, mode="offline")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log ``metrics`` at ``step``, unless W&B has that step from before a resume.

        Without a step, they belong to the last one.
        """
        run = self.experiment
        if step is None:
            step = max(run.step, self._skip_through + 1)
        elif step <= self._skip_through:
            return
        for name in metrics.keys() - self._defined:
            self._defined.add(name)
            self._define(name, direction_of(name, self._directions))
        run.log(dict(metrics), step=step)

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Send rows before ``step`` that W&B lost when a run was killed, from ``metrics.csv``."""
        file = self._marks.folder / "metrics.csv"
        if step and self.experiment is not None and file.is_file():
            with file.open(newline="") as rows:
                for row in csv.DictReader(rows):
                    at = int(row.pop("step"))
                    if at < step:
                        self.log_metrics({k: float(v) for k, v in row.items() if v}, step=at)

    def _define(self, name: str, direction: Direction | None) -> None:
        if direction is not None:
            self.experiment.define_metric(
                name,
                step_metric="epoch" if direction.axis == "epoch" else None,
                summary=f"{direction.goal},last" if direction.goal else None,
            )

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def log_confusion(
        self, key: str, counts: Sequence[Sequence[int]], classes: Sequence[str]
    ) -> None:
        """Log a confusion matrix as W&B's interactive chart; one of many classes as a table.

        Args:
            key: of the chart.
            counts: by true class (row) and predicted class (column).
            classes: names.
        """
        import wandb

        rows = [
            [true, predicted, count]
            for true, line in zip(classes, counts, strict=True)
            for predicted, count in zip(classes, line, strict=True)
            if count or len(classes) <= _PLOTTED
        ]
        fields = {name: name for name in ("Actual", "Predicted", "nPredictions")}
        table = wandb.Table(columns=list(fields), data=rows)
        if len(classes) <= _PLOTTED:
            table = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": key})
        self.log_metrics({key: table})

    @rank_zero_only
    def conclude(self, state: str, *, signum: int = 0, reason: str = "") -> None:
        """End the run in W&B as ``finished``, ``stopped`` (by ``signum``) or ``failed``.

        A run that SIGTERM or SIGUSR1 stops is marked as preempted, one that Ctrl-C stops as killed.
        Continued, it is running again.
        """
        run, self._experiment = self._experiment, None
        if run is None:
            return
        status = {"finished": 0, "failed": 1}.get(state, 128 + signum)
        try:
            run.summary.update({"state": state, "reason": reason})
            if state == "stopped" and signum != _INTERRUPT:
                run.mark_preempting()
            if state != "failed" and self._artifacts is not None:
                upload_weights(run, self._marks.folder, kind=self._artifacts)
        finally:
            run.finish(exit_code=_KILLED if signum == _INTERRUPT else status)

    def _run_id(self) -> str:
        if (known := self._marks.run_id) is not None:
            return known
        new = secrets.token_hex(4)  # of a new run, or of one whose file was damaged
        if is_rank_zero():
            self._marks.run_id = new
        return new


def _settings() -> Any:
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    return wandb.Settings(console="off", disable_git=True)
