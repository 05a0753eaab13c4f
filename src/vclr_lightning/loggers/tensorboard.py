"""TensorBoard, cut back to the checkpoint where a run continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningTensorBoardLogger, rank_zero_only

_ROWS = 200  # of a table, which TensorBoard shows as text


class TensorBoardLogger(LightningTensorBoardLogger):
    """Writes event files to ``tensorboard`` in the run's folder.

    A run that continues marks the step of its checkpoint: TensorBoard then hides what the earlier
    process logged from there on, though its file keeps it. The hyper-parameters' metric
    ``hp_metric`` is the run's ``best``.

    Args:
        directory: the run's folder.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, *, directory: str | Path) -> None:
        try:
            super().__init__(save_dir=directory, name="tensorboard", version="")
        except ImportError as error:
            raise UserError(
                "logger=tensorboard needs TensorBoard; give `pip install 'vclr_lightning["
                "tensorboard]'`"
            ) from error
        self._continues = any(Path(self.log_dir).glob("events.out.*"))
        self._last = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log ``metrics`` at ``step``; without one, at the last."""
        self._last = self._last if step is None else step
        super().log_metrics(metrics, self._last)

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Hide what an earlier process logged at ``step`` and later steps."""
        if not self._continues:
            return
        if self._experiment is not None:
            self._experiment.close()
        self._experiment, self._kwargs = None, self._kwargs | {"purge_step": step}
        self._last = max(step - 1, 0)
        self.log_hyperparams({})  # again, as those of a run cut back to its start are hidden

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Log numbers at the last step, and text as text."""
        for name, value in values.items():
            if isinstance(value, str):
                self.experiment.add_text(name, value, self._last)
            else:
                tag = "hp_metric" if name == "best" else name
                self.experiment.add_scalar(tag, value, self._last)

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, *, caption: Sequence[str]
    ) -> None:
        """Log pictures ``(H, W, 3)``, each under the key and its number."""
        for number, image in enumerate(images):
            tag = key if len(images) == 1 else f"{key}/{number}"
            at = self._last if step is None else step
            self.experiment.add_image(tag, np.asarray(image), at, dataformats="HWC")

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log the first rows of a table as text."""
        rows = [columns, ["---"] * len(columns), *data[:_ROWS]]
        text = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)
        more = f"\n\n{_ROWS} of {len(data)} rows" if len(data) > _ROWS else ""
        self.experiment.add_text(key, text + more, self._last)

    @rank_zero_only
    def conclude(self, state: str, *, signum: int = 0, reason: str = "") -> None:
        """Write how the run ended, and close the file."""
        self.experiment.add_text("state", f"{state} {reason}".strip(), self._last)
        self.experiment.close()


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
