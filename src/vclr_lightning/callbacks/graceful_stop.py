"""SIGTERM and Ctrl-C end a training between two steps, saved."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from shlex import quote
from typing import Any

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.core.distributed import max_over_ranks
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.stopping import KILL, SignalHandler, StopRequested, write_stderr

logger = logging.getLogger(__name__)


class GracefulStop(CheckedCallback):
    """Finishes the optimizer step on the first SIGTERM or Ctrl-C, saves, and stops; aborts on the
    second.

    The ranks agree on the step, so one of them receiving the signal is enough. The
    :class:`~vclr_lightning.callbacks.checkpoint.ResumableCheckpoint` among the trainer's callbacks
    saves; without one the run stops unsaved. Works with any LightningModule. Replaces Lightning's
    own handlers, which stop between the hooks of a step, until ``fit`` ends; a signal too late for
    another step is then raised again for the handlers outside the training. Python delivers signals
    to the main thread only: they do not stop a training in another thread, and the log says so.

    Args:
        then: how the run continues, in the message after the path of the checkpoint; by default
            that of ``trainer.fit``.

    Raises:
        StopRequested: at the start of the batch after the signal.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[GracefulStop()], logger=False, accelerator="cpu")
    """

    def __init__(self, *, then: str | None = None) -> None:
        self.then = then
        self._handler: SignalHandler | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # They would call ours as well and, on several processes, start a collective.
            connector: Any = trainer._signal_connector
            connector.register_signal_handlers = lambda: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        launcher, first = trainer.strategy.launcher, trainer.is_global_zero

        def begin(signum: int) -> None:
            if first:
                name = signal.Signals(signum).name
                write_stderr(f"{name}: finishing the step and saving; again to abort")

        def abort(signum: int) -> None:
            kill = getattr(launcher, "kill", None)
            if callable(kill):
                kill(KILL)
            write_stderr("aborted; the last checkpoint is intact")

        self._handler = SignalHandler(begin, abort)
        if not self._handler.install():
            logger.warning("training outside the main thread: SIGTERM and Ctrl-C do not save it")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches or not (signum := self._received()):
            return
        paths = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResumableCheckpoint):
                callback.save(trainer)
                if callback.last_path.exists():  # not before the first step
                    paths.append(callback.last_path)
        if trainer.is_global_zero:
            name = signal.Signals(signum).name
            print(f"Stopped by {name} after step {trainer.global_step}: ", file=sys.stderr, end="")
            print(self._saved(paths[0]) if paths else "nothing saved", file=sys.stderr)
        raise StopRequested(signum, local_rank=trainer.local_rank)

    def _saved(self, path: Path) -> str:
        return f"saved {quote(str(path))}; " + (
            self.then or f"trainer.fit(..., ckpt_path={str(path)!r}) continues"
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signum = self._received() if self._handler is not None else 0
        self._restore(trainer)
        if signum:
            signal.raise_signal(signum)

    def _received(self) -> int:
        """Return the signal that any rank has received."""
        return max_over_ranks(self._handler.received if self._handler is not None else 0)

    def _restore(self, trainer: Trainer) -> None:
        if self._handler is not None:
            self._handler.restore()
            self._handler = None
        trainer._signal_connector.__dict__.pop("register_signal_handlers", None)
