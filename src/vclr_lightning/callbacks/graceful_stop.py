"""SIGTERM and Ctrl-C end a run between two steps, saved."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from pytorch_lightning import Callback, LightningModule, Trainer

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.callbacks.ranks import max_rank

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(SystemExit):
    """The run was asked to stop and has saved; ends the process with the signal's status.

    The status is 128 + the signal's number (143 for SIGTERM, 130 for Ctrl-C), and 0 on processes
    that the trainer launched itself, whose failure it would take for a crash.

    Example:
        >>> StopRequested(signal.SIGTERM, local_rank=0).code
        143
    """

    def __init__(self, signum: int, *, local_rank: int) -> None:
        super().__init__(128 + signum if local_rank == 0 else 0)
        self.signum = signum


class GracefulStop(Callback):
    """Finishes the optimizer step on the first SIGTERM or Ctrl-C, saves, and stops; aborts on the
    second.

    The ranks agree on the step, so it is enough that one of them receives the signal. Saving is up
    to the :class:`~vclr_lightning.callbacks.checkpoint.ResumableCheckpoint` among the trainer's
    callbacks; without one the run stops unsaved. Works with any LightningModule. Takes the place of
    Lightning's own SIGTERM handler, which stops in the middle of the hooks of a step, for the
    duration of the training. Python lets the main thread alone take signals: a training in another
    thread is not stopped by them, and the log says so.

    Raises:
        StopRequested: at the start of the batch after the signal.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[GracefulStop()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._received = 0
        self._pid = -1
        self._before: dict[signal.Signals, Any] = {}
        self._trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer, self._pid = trainer, os.getpid()
        self._received = signal.SIGTERM if trainer.received_sigterm else 0
        if threading.current_thread() is not threading.main_thread():
            logger.warning("training outside the main thread: SIGTERM and Ctrl-C do not save it")
            return
        for signum in _SIGNALS:
            self._before[signum] = signal.signal(signum, self._handle)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        signum = max_rank(self._received)
        if not signum:
            return
        paths = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResumableCheckpoint):
                callback.save(trainer)
                paths.append(str(callback.last_path))
        if trainer.is_global_zero:
            name = signal.Signals(signum).name
            saved = f"saved {paths[0]}; the same command continues" if paths else "nothing saved"
            print(f"Stopped by {name} after step {trainer.global_step}: {saved}", file=sys.stderr)
        raise StopRequested(signum, local_rank=trainer.local_rank)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # inherited by a forked process: not its business
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if self._received:
            self._abort(signum)
        self._received = signum
        if self._trainer is not None and self._trainer.is_global_zero:
            name = signal.Signals(signum).name
            os.write(2, f"\n{name}: finishing the step and saving; again to abort\n".encode())

    def _abort(self, signum: int) -> NoReturn:
        launcher = self._trainer.strategy.launcher if self._trainer is not None else None
        kill = getattr(launcher, "kill", None)
        if callable(kill):
            kill(signal.SIGKILL)
        os.write(2, b"aborted; the last checkpoint is intact\n")
        os._exit(128 + signum)
