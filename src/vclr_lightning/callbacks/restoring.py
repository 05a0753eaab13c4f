"""How Lightning's loops are saved between two steps, and restored there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Trainer

logger = logging.getLogger(__name__)


def tell_never_logged(trainer: Trainer, monitor: str | None, best: float | None) -> None:
    """Say at the end of a training that there is no best checkpoint, and why."""
    if monitor is not None and best is None and trainer.is_global_zero:
        logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
        logger.warning(
            "there is no best checkpoint: no epoch ended with a value of monitor=%s; logged was %s",
            *(monitor, logged),
        )


def undo_fetch(progress: dict[str, Any]) -> None:
    """Set a loop's batch counters back to "about to train this batch", after it has been fetched.

    Lightning's loops can be saved from many hooks and guess on restart which one it was; in this
    state all counters agree, and there is nothing to guess.

    Example:
        >>> counters = {"ready": 4, "started": 3, "processed": 3, "completed": 3}
        >>> progress = {"total": counters, "current": dict(counters), "is_last_batch": True}
        >>> undo_fetch(progress)
        >>> progress["current"]["ready"], progress["is_last_batch"]
        (3, False)
    """
    for counters in (progress["total"], progress["current"]):
        for name in ("ready", "started", "processed"):
            counters[name] = counters["completed"]
    progress["is_last_batch"] = False


def restore_loader_positions(trainer: Trainer) -> None:
    """Restore the positions of dataloaders that were built before the checkpoint was read.

    Lightning forgets it where a module asks for the length of the run when it configures its
    optimizers, as a learning-rate schedule does.
    """
    loop = trainer.fit_loop
    waiting, loader = loop._combined_loader_states_to_load, loop._combined_loader
    if waiting and loader is not None and loop._data_fetcher is not None:
        loader._load_state_dicts(waiting)
        loop._combined_loader_states_to_load = []
        iter(loop._data_fetcher)


@contextmanager
def restoring(trainer: Trainer) -> Iterator[None]:
    """Name the checkpoint where ``trainer.fit`` fails in the block because it cannot be restored.

    Raises:
        UserError: the checkpoint's values are not those that this run saves.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Lightning releases the checkpoint when it has restored everything.
        if not trainer._checkpoint_connector._loaded_checkpoint:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{trainer.ckpt_path} is no checkpoint that this run can continue from "
            f"({type(error).__name__}: {reason}); give init={trainer.ckpt_path} to start from its "
            "weights, or resume=never"
        ) from error
