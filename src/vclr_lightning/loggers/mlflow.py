"""MLflow, continued where a run stopped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningMLFlowLogger, rank_zero_only
from vclr_lightning.loggers.continued import RunMarks, tag_list

_LONGEST = 500  # characters of a parameter
_AT_ONCE = 100  # parameters of a call
_ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_LOCAL = ("sqlite:///", "file:")


class MLflowLogger(LightningMLFlowLogger):
    """Logs to one MLflow run per folder, and continues it on resume.

    The run's id is stored in ``mlflow_id`` in the folder. MLflow cannot cut a run back, so steps
    that it already has are not sent again; a resumed run repeats them bit for bit. A run that a
    signal stopped is ``KILLED``, and ``RUNNING`` again when it continues.

    Args:
        directory: the run's folder.
        tracking_uri: a server, or a database such as ``sqlite:///outputs/mlflow.db``.
        experiment: MLflow experiment.
        name: displayed name of the run; by default the folder's.
        group: of a sweep's runs: a tag.
        job_type: likewise.
        tags: ``KEY=VALUE`` or labels, as a list or a line.

    Raises:
        UserError: MLflow is not installed, or the URI is none of its.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        tracking_uri: str = "sqlite:///outputs/mlflow.db",
        experiment: str = "vclr",
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | str | None = None,
    ) -> None:
        folder = Path(directory).absolute()
        self._marks = RunMarks(folder, "mlflow")
        self._skip_through = self._marks.certain
        given = {"group": group, "job_type": job_type, **dict(_pair(tag) for tag in tag_list(tags))}
        try:
            super().__init__(
                experiment_name=experiment,
                run_name=name or folder.name,
                tracking_uri=tracking_uri,
                tags={key: value for key, value in given.items() if value is not None},
                artifact_location=_artifacts(tracking_uri),
                run_id=self._marks.run_id,
            )
        except ImportError as error:
            raise UserError(
                "logger=mlflow needs MLflow; give `pip install 'vclr_lightning[mlflow]'`"
            ) from error
        except Exception as error:  # of MLflow, about the URI alone: no server is asked yet
            reason = " ".join(str(error).split())
            raise UserError(
                f"logger.mlflow.tracking_uri={tracking_uri} cannot be used: {reason}"
            ) from error

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_unused: Any, **_more: Any) -> None:
        """Log the parameters that the run does not have yet: MLflow changes none."""
        from mlflow.entities import Param

        client: Any = self.experiment
        known: Mapping[str, str] = {}
        if self._marks.run_id is None:
            self._marks.run_id = str(self.run_id)
        else:
            known = client.get_run(self.run_id).data.params
            client.update_run(self.run_id, status="RUNNING")
        new = [
            Param(key, str(value)[:_LONGEST])
            for key, value in _leaves(params)
            if key not in known and value is not None
        ]
        for first in range(0, len(new), _AT_ONCE):
            client.log_batch(self.run_id, params=new[first : first + _AT_ONCE])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log ``metrics`` at ``step``, unless MLflow has that step from before a resume."""
        if step is None:
            step = self._skip_through + 1
        elif step <= self._skip_through:
            return
        super().log_metrics(metrics, step)
        self._marks.reached(step)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Log numbers at the last step, and text as tags."""
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        super().log_metrics(numbers, self._marks.certain + 1)
        for name in values.keys() - numbers.keys():
            self.experiment.set_tag(self.run_id, name, str(values[name]))

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, *, caption: Sequence[str]
    ) -> None:
        """Store pictures ``(H, W, 3)`` as artifacts."""
        at = "" if step is None else f"-{step}"
        for number, image in enumerate(images):
            file = f"{_path(key)}{at}/{number:03}.png"
            self.experiment.log_image(self.run_id, np.asarray(image), file)

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Store a table as an artifact in CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *data])
        self.experiment.log_text(self.run_id, text.getvalue(), f"{_path(key)}.csv")

    @rank_zero_only
    def log_video(self, key: str, videos: Sequence[str], **_unused: Any) -> None:
        """Store files of videos as artifacts."""
        for file in videos:
            self.experiment.log_artifact(self.run_id, file, _path(key))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Do nothing: training's end is not the run's, whose tests follow."""

    @rank_zero_only
    def conclude(self, state: str, *, signum: int = 0, reason: str = "") -> None:
        """End the run in MLflow; ``reason`` is a tag."""
        self.experiment.set_tag(self.run_id, "reason", reason)
        self.experiment.set_terminated(self.run_id, _ENDS[state])


def _pair(tag: str) -> tuple[str, str]:
    key, _, value = tag.partition("=")
    return key, value


def _artifacts(uri: str) -> str | None:
    """Where artifacts go: beside a database; a server has its own place."""
    found = next((uri.removeprefix(head) for head in _LOCAL if uri.startswith(head)), None)
    if found is None:
        return None
    folder = Path(found).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / "mlartifacts")


def _path(key: str) -> str:
    return re.sub(r"[^\w./-]+", "_", key)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """All values by dotted key."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
