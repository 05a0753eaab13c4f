"""The trainer's progress as a checkpoint keeps it: always "about to train batch b of epoch e".

Lightning's loops can be saved from many hooks and guess on restart which one it was. A state saved
at the start of a batch, with that batch taken back, needs no guess: every counter agrees.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Trainer

_COUNTERS = ("ready", "started", "processed")


def take_back_batch(fit_loop: dict[str, Any]) -> None:
    """Undo, in place, what fetching the next batch changed in ``checkpoint["loops"]["fit_loop"]``.

    Example:
        >>> counters = {"ready": 4, "started": 3, "processed": 3, "completed": 3}
        >>> loop = {"epoch_loop.batch_progress": {
        ...     "total": dict(counters), "current": dict(counters), "is_last_batch": True}}
        >>> take_back_batch(loop)
        >>> loop["epoch_loop.batch_progress"]["current"]["ready"]
        3
        >>> loop["epoch_loop.batch_progress"]["is_last_batch"]
        False
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    for counters in (progress["total"], progress["current"]):
        for name in _COUNTERS:
            counters[name] = counters["completed"]
    progress["is_last_batch"] = False


def logged_steps(fit_loop: dict[str, Any]) -> int:
    """Optimizer steps whose rows are complete in the logs."""
    return int(fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"])


def load_waiting_positions(trainer: Trainer) -> None:
    """Hand the checkpoint's positions to dataloaders that were built before it was read.

    Lightning forgets it where a module asks for the length of the run when it configures its
    optimizers, as a learning-rate schedule does.
    """
    loop = trainer.fit_loop
    waiting, loader = loop._combined_loader_states_to_load, loop._combined_loader
    if waiting and loader is not None and loop._data_fetcher is not None:
        loader._load_state_dicts(waiting)
        loop._combined_loader_states_to_load = []
        iter(loop._data_fetcher)
