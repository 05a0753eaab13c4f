"""The random numbers and the data with which an interrupted epoch goes on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from torch.utils.data import SequentialSampler

from vclr_lightning.callbacks.positioned import Position, has_state, keeps_position, positioned
from vclr_lightning.callbacks.restoring import restore_loader_positions
from vclr_lightning.core.distributed import gather_objects
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningDataModule, Trainer
from vclr_lightning.core.random import random_state, set_random_state

logger = logging.getLogger(__name__)

_KEY = "loader_positions"
_VAGUE = "You're resuming from a checkpoint that ended before the epoch ended"
_HOOK = "_load_combined_loader_states"  # of the fit loop: the loaders are there, not yet iterated


class Continuation:
    """Keeps, for each rank, the state of the random generators and the train loaders' positions.

    Loaders that restore their own position exactly are left to Lightning.

    Args:
        fast_forward: give the others a position, see
            :class:`~vclr_lightning.callbacks.positioned.PositionedLoader`.
    """

    def __init__(self, *, fast_forward: bool) -> None:
        self.fast_forward = fast_forward
        self._random: dict[str, Any] | None = None  # to continue with
        self._began = False  # an epoch, with the random numbers to continue with
        self._restored: Position | None = None
        self._forwarded = False
        self._resumed: tuple[int, int, int] | None = None  # epoch, its batches, processes

    def watch(self, trainer: Trainer) -> None:
        """Be called for the loaders, whenever Lightning has made them."""
        loop: Any = trainer.fit_loop
        before = getattr(loop, _HOOK)
        setattr(loop, _HOOK, lambda: self._place(trainer, before))

    def unwatch(self, trainer: Trainer) -> None:
        """Leave the trainer as it was."""
        trainer.fit_loop.__dict__.pop(_HOOK, None)

    def _place(self, trainer: Trainer, load_states: Callable[[], None]) -> None:
        combined: Any = trainer.fit_loop._combined_loader
        if self.fast_forward and not all(map(keeps_position, combined.flattened)):
            combined.flattened = [positioned(loader) for loader in combined.flattened]
        restored, self._restored = self._restored, None
        if restored is not None:
            self._go_to(restored, combined.flattened, trainer.world_size)
        load_states()

    def _go_to(self, restored: Position, loaders: list[Any], ranks: int) -> None:
        lengths = [_length(loader) for loader in loaders]
        assert self._resumed is not None
        if self._resumed[2] == ranks and lengths != restored["lengths"]:
            raise UserError(
                f"the checkpoint was saved in an epoch of {restored['lengths']} batches, of each"
                f" train loader, but it now has {lengths} (None: no length); resume with the data"
                " and the batch size that it was saved with"
            )
        for loader, position in zip(loaders, restored["loaders"], strict=True):
            loader.go_to(position, epoch=restored["epoch"])
            if "random" not in position["begun"] and self._random is not None:
                set_random_state(self._random)
                self._began = True
        self._forwarded = True

    def start(self, trainer: Trainer) -> None:
        """Restore what Lightning has not, at the start of the training, and say what cannot be."""
        restore_loader_positions(trainer)
        self._tell(trainer)
        if self._random is not None and not self._began:
            set_random_state(self._random)
        self._random = None

    def save(self, trainer: Trainer, checkpoint: dict[str, Any], *, fetched: bool) -> None:
        """Write all ranks' states into a checkpoint; to be called on all ranks.

        Args:
            trainer: in training.
            checkpoint: of Lightning.
            fetched: a batch has been fetched that has not been trained on.
        """
        checkpoint["random_states"] = gather_objects(random_state())
        loop: Any = trainer.fit_loop
        loaders = loop._combined_loader.flattened
        if not all(hasattr(loader, "go_to") for loader in loaders):
            return
        fetcher = loop._data_fetcher
        ahead = 0 if fetcher.length is not None else getattr(fetcher, "prefetch_batches", 0)
        ended = loop.epoch_loop.batch_progress.is_last_batch or not loop._iteration_based_training()
        if not fetched and ended:
            positions = [loader.next_epoch() for loader in loaders]
        else:
            positions = [loader.position(ahead + fetched) for loader in loaders]
        epoch = loop.epoch_progress.current.processed - (not fetched and not ended)
        lengths = [_length(loader) for loader in loaders]
        own = {"loaders": positions, "lengths": lengths, "epoch": epoch}
        checkpoint[_KEY] = gather_objects(own)
        state = checkpoint["loops"]["fit_loop"]["state_dict"]
        state.pop("combined_loader", None)
        # For a trainer without this callback.
        if states := [p["state"] for p in positions if p.get("state") is not None]:
            state["combined_loader"] = states

    def load(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Read this rank's states."""
        loop, saved = checkpoint["loops"]["fit_loop"], checkpoint.get(_KEY)
        states = checkpoint.get("random_states") or saved or [None]
        if len(states) != trainer.world_size and states[0] and trainer.is_global_zero:
            logger.info(
                "continuing on %d process(es) what %d began: each step has the same samples, but"
                " sums are rounded differently, and BatchNorm's shares and the processes' own"
                " random numbers (dropout) differ, so the result need not be bit-equal",
                *(trainer.world_size, len(states)),
            )
        own = trainer.global_rank % len(states)
        self._random = states[own] if checkpoint.get("random_states") else None
        batches = int(loop["epoch_loop.batch_progress"]["current"]["completed"])
        self._resumed = int(checkpoint["epoch"]), batches, len(states)
        if saved and self.fast_forward:
            self._restored = saved[own]
            loop["state_dict"].pop("combined_loader", None)

    def _tell(self, trainer: Trainer) -> None:
        """Say on what the rest of an interrupted epoch is trained, where loaders have no state."""
        resumed, self._resumed = self._resumed, None
        loop: Any = trainer.fit_loop
        if resumed is None or not resumed[1] or not loop.restarting:
            return
        epoch, done, ranks = resumed
        warnings.filterwarnings("ignore", message=_VAGUE)  # what follows says more
        loaders = [loader for loader in loop._combined_loader.flattened if not has_state(loader)]
        total = trainer.num_training_batches
        if not trainer.is_global_zero or not loaders or done >= total:
            return
        where = f"continuing in epoch {epoch} after {done} batches"
        if not self._forwarded:
            logger.warning("%s with a train loader that %s", where, _rest(loaders[0], done, total))
        elif ranks != trainer.world_size:
            logger.warning(
                "%s of %d process(es) on %d: in the rest of the epoch some samples repeat, and as"
                " many are left out",
                *(where, ranks, trainer.world_size),
            )
        elif epoch and any(getattr(loader, "persistent_workers", False) for loader in loaders):
            logger.warning(
                "%s: the samples are those of an uninterrupted epoch, but the random numbers that"
                " persistent workers draw for them (augmentation) are not",
                where,
            )
        else:
            data: Any = getattr(trainer, "datamodule", None)
            plain = LightningDataModule.load_state_dict
            moves = data is not None and type(data).load_state_dict is not plain
            logger.info(
                "%s, which are read once more and passed over%s",
                where,
                "; give fast_forward=False if the data module restores the position" * moves,
            )


def _rest(loader: Any, done: int, total: float) -> str:
    """Say what a loader without a position does in the rest of an epoch."""
    if total == float("inf"):
        return f"begins anew: its first {done} batches repeat, and the epoch is longer by them"
    rest = int(total) - done
    begins = f"has no state and begins anew: of the {rest} batches left in the epoch"
    if isinstance(getattr(loader, "sampler", None), SequentialSampler):
        return f"{begins}, the first {min(done, rest)} repeat, and as many at its end are left out"
    share = f"{100 * done / total:.0f}%"
    return f"{begins}, about {share} of the samples repeat, and as many are left out"


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
