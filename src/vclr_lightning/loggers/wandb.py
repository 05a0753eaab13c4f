"""Weights & Biases, continued where a run stopped."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.lightning import LightningWandbLogger, rank_zero_only


class WandbLogger(LightningWandbLogger):
    """Logs to one W&B run per folder, online or offline, and continues it on resume.

    The run's id is stored in ``wandb_id`` in the folder. Steps that W&B already has are not sent
    again, so a run that was stopped and continued shows one history. Offline needs no account;
    ``wandb sync`` uploads the folder later (with ``--append`` after a resume).

    Args:
        directory: the run's folder, which W&B's files are written below.
        project: W&B project.
        name: displayed name of the run; by default the folder's.
        offline: write files only.
        entity: user or team that the project belongs to.
        group: runs displayed together.
        tags: labels.

    Raises:
        UserError: W&B cannot be started online, without an account or a network.
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
        tags: list[str] | None = None,
    ) -> None:
        folder = Path(directory).absolute()  # W&B's process may have another working directory
        self._marks = folder / "wandb_step"
        self._skip_through = -1
        super().__init__(
            name=name or folder.name,
            save_dir=folder,
            id=_run_id(folder / "wandb_id"),
            project=project,
            offline=offline,
            entity=entity,
            group=group,
            tags=tags,
            settings=_settings(),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning's, which W&B warns about

    @property
    def experiment(self) -> Any:
        """The ``wandb.Run``."""
        if self._experiment is None and is_rank_zero():
            Path(self.save_dir or ".").mkdir(parents=True, exist_ok=True)
            import wandb

            if wandb.run is not None and wandb.run.id != self._wandb_init["id"]:
                wandb.finish()  # of a sweep's job before this one
            try:
                run = wandb.init(**self._wandb_init, mode="offline" if self._offline else None)
            except (wandb.errors.UsageError, wandb.errors.CommError) as error:
                raise UserError(
                    "W&B cannot start: no account or no network; log in with `wandb login`, or use"
                    " logger.wandb.offline=true, or logger=csv"
                ) from error
            self._experiment = run
            self._skip_through = max(self._skip_through, run.step - 1, self._last_offline())
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log ``metrics`` at ``step``, unless W&B has that step from before a resume."""
        run = self.experiment
        if step is not None and step <= self._skip_through:
            return
        run.log(dict(metrics), step=step)
        if self._offline and step is not None:
            self._marks.write_text(str(step))

    def _last_offline(self) -> int:
        """The last step that earlier offline sessions certainly have, which W&B does not report.

        A step is written when the next one begins, so after a kill the last may be missing.
        """
        if not (self._offline and self._marks.exists()):
            return -1
        text = self._marks.read_bytes()
        return int(text) - 1 if text.isdigit() else -1


def _run_id(path: Path) -> str:
    known = path.read_bytes().strip().decode(errors="replace") if path.exists() else ""
    if re.fullmatch(r"[\w.-]{1,128}", known):
        return known
    run_id = secrets.token_hex(4)  # of a new run, or of one whose file was damaged
    if is_rank_zero():
        with replacing(path) as file:
            file.write(f"{run_id}\n".encode())
    return run_id


def _settings() -> Any:
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    return wandb.Settings(console="off", disable_git=True)
