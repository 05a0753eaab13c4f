"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from vclr_lightning.core.lightning import LightningModule, ProgressBar, Trainer, check_trainer
from vclr_lightning.core.screen import screen


class RunProgress(ProgressBar):
    """Shows epoch, step, logged values and the time left of the whole run.

    A bar on a terminal; where the output goes to a file, one line every ``line_every_s`` seconds.
    The time left follows from the steps of this session, so a resumed run is judged by its own
    speed. Shows the metrics logged with ``prog_bar=True``. Works with any LightningModule: one that
    makes several optimizer steps for a batch is judged by its batches or, where ``max_steps`` ends
    it, by its steps; without a known end there is no time left.

    Args:
        refresh_s: seconds between two refreshes of the bar.
        line_every_s: seconds between two lines where there is no terminal.
        console: where to write; standard error by default, and of a copy, as of spawned processes.

    Example:
        >>> estimate(done=10, total=40, seconds=5.0)
        '0:00:15'
    """

    def __init__(
        self,
        *,
        refresh_s: float = 0.5,
        line_every_s: float = 30.0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self.refresh_s = refresh_s
        self.line_every_s = line_every_s
        self.console = console or screen(stderr=True)
        self._bar: Progress | None = None
        self._enabled = True
        self._first_step = 0
        self._total: int | None = None
        self._started = self._shown = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_trainer(trainer)
        super().setup(trainer, pl_module, stage)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "console": None, "_bar": None}  # they hold locks

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, console=screen(stderr=True))

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        self.console.print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._total = _total(trainer)
        self._first_step, self._started = self._done(trainer), time.monotonic()
        if self._enabled and self.console.is_terminal:
            text = TextColumn("{task.description}")
            self._bar = Progress(text, BarColumn(), TaskProgressColumn(), console=self.console)
            self._bar.add_task(self._text(trainer), total=self._total)
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._show(trainer, self.refresh_s if self._bar else self.line_every_s)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar:
            self._show(trainer, 0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, 0)
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: Trainer, after_s: float) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._shown < after_s:
            return
        self._shown = now
        if self._bar:
            task = self._bar.tasks[0].id
            self._bar.update(task, completed=self._done(trainer), description=self._text(trainer))
        else:
            self.console.print(self._text(trainer), soft_wrap=True)

    def _done(self, trainer: Trainer) -> int:
        if trainer.lightning_module.automatic_optimization or trainer.max_steps > 0:
            return trainer.global_step
        return trainer.fit_loop.total_batch_idx + 1

    def _text(self, trainer: Trainer) -> str:
        done, total = self._done(trainer), self._total
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        known = epochs is not None and epochs > 0
        parts = [f"epoch {min(epoch, epochs or 1)}/{epochs}" if known else f"epoch {epoch}"]
        parts.append(f"step {done}" + (f"/{total}" if total else ""))
        parts += [f"{k} {float(value):.4g}" for k, value in trainer.progress_bar_metrics.items()]
        if total:
            first, seconds = self._first_step, time.monotonic() - self._started
            parts.append(
                f"left {estimate(done=done - first, total=total - first, seconds=seconds)}"
            )
        return "  ".join(parts)


def _total(trainer: Trainer) -> int | None:
    """Return the steps of the run, or its batches where a batch may be several steps."""
    if trainer.lightning_module.automatic_optimization:
        steps = trainer.estimated_stepping_batches
    elif trainer.max_steps > 0:
        steps = trainer.max_steps
    else:
        steps = trainer.num_training_batches * (trainer.max_epochs or 1)
    return int(steps) if 0 <= steps < float("inf") else None


def estimate(*, done: int, total: int, seconds: float) -> str:
    """Return the time left, when ``done`` of ``total`` steps took ``seconds``."""
    if done < 1:
        return "?"
    return str(timedelta(seconds=round(seconds / done * max(0, total - done))))
