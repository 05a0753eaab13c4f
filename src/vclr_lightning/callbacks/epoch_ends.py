"""At which epochs' ends a callback has something to do."""

from __future__ import annotations

import math

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Trainer


class EpochEnds:
    """Decides at the end of an epoch whether something is due; at the end of the run it always is.

    Args:
        every_n_epochs: epochs from one time to the next.
        every_n_steps: optimizer steps instead: due at the end of an epoch in which another so many
            have been taken, so that nothing depends on how many videos there are; where an epoch
            has no known length, at the end of each.
        of: what is due, for an error.

    Raises:
        UserError: a number is below 1.

    Example:
        >>> from types import SimpleNamespace
        >>> def due(step):  # epochs of 4 steps
        ...     now = {"global_step": step, "current_epoch": step // 4 - 1, "max_steps": 40}
        ...     length = {"max_epochs": -1, "num_training_batches": 4}
        ...     trainer = SimpleNamespace(**now, **length, accumulate_grad_batches=1)
        ...     return EpochEnds(every_n_steps=10)(trainer)
        >>> [step for step in range(4, 41, 4) if due(step)]
        [12, 20, 32, 40]
    """

    def __init__(
        self, *, every_n_epochs: int = 1, every_n_steps: int | None = None, of: str = "evaluation"
    ) -> None:
        numbers = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise UserError(f"{name}={number} of the {of} must be 1 or more")
        self.epochs, self.steps = every_n_epochs, every_n_steps

    def __call__(self, trainer: Trainer) -> bool:
        """Whether it is due, asked in ``on_train_epoch_end``."""
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        if epoch == trainer.max_epochs or 0 < trainer.max_steps <= step:
            return True
        if self.steps is None:
            return epoch % self.epochs == 0
        if math.isinf(batches := trainer.num_training_batches):
            return True
        length = math.ceil(batches / trainer.accumulate_grad_batches)
        return step // self.steps > (step - length) // self.steps
