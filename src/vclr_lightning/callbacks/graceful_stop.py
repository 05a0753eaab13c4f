"""SIGTERM and Ctrl-C end a training between two steps, saved."""

from __future__ import annotations

import logging
import signal
import sys
from shlex import quote
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.core.distributed import max_over_ranks
from vclr_lightning.core.stopping import SignalHandler, StopRequested, write_stderr

logger = logging.getLogger(__name__)


class GracefulStop(Callback):
    """Finishes the optimizer step on the first SIGTERM or Ctrl-C, saves, and stops; aborts on the
    second.

    The ranks agree on the step, so it is enough that one of them receives the signal. Saving is up
    to the :class:`~vclr_lightning.callbacks.checkpoint.ResumableCheckpoint` among the trainer's
    callbacks; without one the run stops unsaved. Works with any LightningModule. Takes the place of
    Lightning's own handlers, which stop in the middle of the hooks of a step, until ``fit`` ends;
    a signal that came too late for another step is then raised again, for whoever answers it
    outside of the training. Python lets the main thread alone take signals: a training in another
    thread is not stopped by them, and the log says so.

    Raises:
        StopRequested: at the start of the batch after the signal.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[GracefulStop()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._answer: SignalHandler | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            # They would call ours as well, and, on several processes, start a collective.
            connector: Any = trainer._signal_connector
            connector.register_signal_handlers = _nothing

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        launcher, first = trainer.strategy.launcher, trainer.is_global_zero

        def begin(signum: int) -> None:
            if first:
                name = signal.Signals(signum).name
                write_stderr(f"{name}: finishing the step and saving; again to abort")

        def abort(signum: int) -> None:
            kill = getattr(launcher, "kill", None)
            if callable(kill):
                kill(signal.SIGKILL)
            write_stderr("aborted; the last checkpoint is intact")

        self._answer = SignalHandler(begin, abort)
        if not self._answer.install():
            logger.warning("training outside the main thread: SIGTERM and Ctrl-C do not save it")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        signum = self._agreed()
        if not signum:
            return
        paths = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResumableCheckpoint):
                callback.save(trainer)
                if callback.last_path.exists():  # not before the first step
                    paths.append(quote(str(callback.last_path)))
        if trainer.is_global_zero:
            name = signal.Signals(signum).name
            saved = f"saved {paths[0]}; the same command continues" if paths else "nothing saved"
            print(f"Stopped by {name} after step {trainer.global_step}: {saved}", file=sys.stderr)
        raise StopRequested(signum, local_rank=trainer.local_rank)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._release(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signum = self._agreed() if self._answer is not None else 0
        self._release(trainer)
        if signum:
            signal.raise_signal(signum)

    def _agreed(self) -> int:
        return max_over_ranks(self._answer.received if self._answer is not None else 0)

    def _release(self, trainer: Trainer) -> None:
        if self._answer is not None:
            self._answer.restore()
            self._answer = None
        trainer._signal_connector.__dict__.pop("register_signal_handlers", None)


def _nothing() -> None:
    pass
