"""What Lightning leaves undone when a run restarts in the middle of an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from vclr_lightning.data.loading.epochs import EpochBatches


def restore_position(trainer: Trainer, batches: EpochBatches) -> None:
    """Hand the checkpoint's position to a loader that was built before the checkpoint's loops.

    Lightning does so when it builds the loader itself. A module that asks for the length of the
    run when it configures its optimizers has it built earlier, and the position, still waiting,
    would be forgotten; to be called before the first batch is loaded.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        # Lightning announced the epoch already; the position may be the end of the one before.
        batches.set_epoch(loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
