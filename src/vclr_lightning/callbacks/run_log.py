"""The log file of a run; the screen shows the same as bars and tables."""

from __future__ import annotations

import io
import logging
from collections.abc import Sized
from typing import Any

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer

logger = logging.getLogger(__name__)


def note(text: str) -> None:
    """Write a line to the files that the root logger writes to, and to nothing else.

    Example:
        >>> note("epoch 1/4")
    """
    if not is_rank_zero():
        return
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def note_table(table: Any) -> None:
    """Write a table of rich, see :func:`note`."""
    from vclr_lightning.core.screen import screen

    content = io.StringIO()
    screen(file=content, width=120).print(table)
    note("\n" + content.getvalue().rstrip())


class RunLog(CheckedCallback):
    """Writes to the log file what is trained on, the values after each epoch, and the end.

    The file is that of a ``logging.FileHandler`` of the root logger. Counts come from the trainer's
    data module (``train`` and ``val``), where it has them; values are those that the epoch logged.
    Works with any LightningModule.

    Args:
        unit: what a sample is called.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[RunLog()], logger=False, accelerator="cpu")
    """

    def __init__(self, *, unit: str = "samples") -> None:
        self.unit = unit
        self._before: dict[str, Any] = {}
        self._ended = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        found = [
            f"{len(table)} {self.unit} {what}"
            for what, name in (("to train on", "train"), ("held out", "val"))
            if isinstance(table := getattr(data, name, None), Sized)
        ]
        if trainer.num_training_batches != float("inf"):
            found.append(f"{trainer.num_training_batches} batches an epoch")
        limits = {"epochs": trainer.max_epochs, "steps": trainer.max_steps}
        limited = " or ".join(f"{n} {what}" for what, n in limits.items() if n and n > 0)
        found.append(f"{limited or 'no end'}, {trainer.world_size} process(es)")
        note("; ".join(found))
        if trainer.global_step:
            note(f"continued after step {trainer.global_step}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ended = True  # noted when all other callbacks have logged

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note_epoch(trainer)
        note(f"training ended after step {trainer.global_step}")

    def _note_epoch(self, trainer: Trainer) -> None:
        # The trainer keeps values of earlier epochs; one that is logged again is another tensor.
        before, self._before = self._before, dict(trainer.callback_metrics)
        if not self._ended:
            return
        self._ended = False
        new = (item for item in sorted(self._before.items()) if item[1] is not before.get(item[0]))
        values = ", ".join(f"{name} {float(value):.5g}" for name, value in new)
        of = f"/{n}" if (n := trainer.max_epochs) and n > 0 else ""
        note(f"epoch {trainer.current_epoch}{of}, step {trainer.global_step}: {values}")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        what = " ".join(f"{type(exception).__name__}: {exception}".split())
        note(f"training stopped after step {trainer.global_step}: {what}")
