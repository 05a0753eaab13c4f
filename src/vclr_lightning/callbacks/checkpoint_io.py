"""Checkpoint files that are whole or not there at all."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import torch

from vclr_lightning.core.distributed import failing_together, is_rank_zero, max_over_ranks
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.lightning import CheckpointIO, tell_choice
from vclr_lightning.core.saved import load_dict

logger = logging.getLogger(__name__)

_SHARE = 0.02  # of the time that saving may take
_LONGEST_S = 1800.0  # between two saves, however slow the disk was
_HANDED_BACK = ".temp.ckpt"  # the weights that spawned processes hand to the one that waits
_PARTS = {  # of a checkpoint of Lightning
    "epoch": int,
    "global_step": int,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}


class CheckpointFiles:
    """The newest and the best checkpoint of a run, written at once or in the background.

    Every rank has to call the same methods at the same points. The first one writes; all raise what
    fails there. ``min_minutes`` is that of
    :class:`~vclr_lightning.callbacks.checkpoint.ResumableCheckpoint`.

    Attributes:
        writing: whether a write has begun that has not been waited for.
    """

    def __init__(self, *, last: Path, best: Path, min_minutes: float | None) -> None:
        if min_minutes is not None and not 0 <= min_minutes < math.inf:
            raise UserError(f"min_minutes={min_minutes} of the checkpoint must be 0 or more")
        self.last, self.best, self.min_minutes = last, best, min_minutes
        self.writing = False
        self._new = last.with_suffix(".new")
        self._kept: dict[str, Any] | None = None
        self._write: Future[float] | None = None
        self._started = self._next = 0.0

    def clear(self) -> None:
        """Remove the unfinished files of a killed run."""
        if is_rank_zero():
            clear_leftovers(self.last.parent)
            for leftover in (*self.last.parent.glob("*.ckpt.link"), self._new):
                leftover.unlink(missing_ok=True)

    def poll(self) -> bool:
        """Return whether the next save may begin, by the clock of the first process."""
        written = self._write is None or self._write.done()
        state = written + 2 * (time.monotonic() >= self._next)
        state = max_over_ranks(state if is_rank_zero() else 0)
        if self.writing and state & 1:
            self.finish()
        return bool(state & 2)

    def keep_best(self, checkpoint: dict[str, Any]) -> None:
        """Keep the best checkpoint in memory until the next save."""
        self._kept = snapshot(checkpoint) if is_rank_zero() else None

    def begin(self) -> None:
        """Begin a save: from here on its time counts."""
        self.finish()
        self._started, self._next = time.monotonic(), math.inf

    def write(
        self, checkpoint: dict[str, Any], io: CheckpointIO, *, is_best: bool, background: bool
    ) -> None:
        """Write the newest checkpoint, and the best one if it is another.

        In the ``background``, it is copied and written later.
        """
        self.writing = True
        if is_rank_zero():
            checkpoint = snapshot(checkpoint) if background else checkpoint
            best = checkpoint if is_best else self._kept
            pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._write = pool.submit(self._put_in_place, io, checkpoint, best)
            pool.shutdown(wait=False)
        self._kept = None
        if not background:
            self.finish()

    def _put_in_place(
        self, io: CheckpointIO, last: dict[str, Any], best: dict[str, Any] | None
    ) -> float:
        """``best`` first: a run that continues from the previous ``last`` makes it again."""
        if best is not None and best is not last:
            io.save_checkpoint(best, self._new)
            os.replace(self._new, self.best)
        io.save_checkpoint(last, self._new)
        if best is last:
            _link_or_copy(self._new, self.best)
        os.replace(self._new, self.last)
        return time.monotonic()

    def finish(self) -> None:
        """Wait for the write in progress."""
        if not self.writing:
            return
        write, self._write, self.writing = self._write, None, False
        with failing_together():
            took = 0.0 if write is None else write.result() - self._started
        automatic = min(took / _SHARE, _LONGEST_S)
        self._next = self._started + (
            automatic if self.min_minutes is None else 60 * self.min_minutes
        )

    def abandon(self) -> None:
        """Wait for the write in progress, where the run fails for another reason."""
        write, self._write, self.writing = self._write, None, False
        if write is not None and (failure := write.exception()) is not None:
            logger.warning("the last checkpoint could not be written: %s", failure)


def snapshot(value: Any) -> Any:
    """Return a copy of a checkpoint on the CPU, so that training may go on.

    Example:
        >>> weight = torch.zeros(2)
        >>> copied = snapshot({"weights": [weight], "step": 3})
        >>> _ = weight.add_(1)
        >>> copied
        {'weights': [tensor([0., 0.])], 'step': 3}
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy(value)  # with the attributes of an OrderedDict
        copied.update((key, snapshot(inner)) for key, inner in value.items())
        return copied
    if type(value) in (list, tuple):
        return type(value)(map(snapshot, value))
    return value


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name, in place of ``target``; a copy where links don't work."""
    beside = target.with_name(target.name + ".link")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
        os.replace(beside, target)
    except OSError:
        with replacing(target) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically and loads plain content only (``weights_only=True``).

    Give it to any ``Trainer(plugins=[AtomicCheckpointIO()])``.

    Args:
        restart: argument of a command that begins a new run from the weights of a checkpoint, for
            messages, such as ``"init"``.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> io = AtomicCheckpointIO()
        >>> trainer = Trainer(plugins=[io], accelerator="cpu", logger=False)
        >>> trainer.strategy.checkpoint_io is io
        True
    """

    def __init__(self, *, restart: str = "") -> None:
        super().__init__()
        tell_choice(self)
        self.restart = restart

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all."""
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's own, for a write that failed
            if not isinstance(error.__context__, OSError):
                raise
            raise UserError(f"cannot write {path}: {error.__context__.strerror}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load ``path`` onto the CPU, to continue from; raises ``UserError`` if it is not whole."""
        checkpoint = load_dict(Path(path))
        if Path(path).name == _HANDED_BACK:
            return checkpoint
        for name, kind in _PARTS.items():
            if not isinstance(value := checkpoint.get(name), kind):
                what = f"is a {type(value).__name__}" if name in checkpoint else "is missing"
                how = f"give {self.restart}={path}" if self.restart else "load them into the module"
                raise UserError(
                    f"{path} is no checkpoint to continue from: its {name} {what}; to start from"
                    f" its weights, {how}"
                )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete ``path``."""
        Path(path).unlink(missing_ok=True)
