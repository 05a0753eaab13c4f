"""At which epochs' ends a callback has something to do."""

from __future__ import annotations

import math

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Trainer


class EpochEnds:
    """Tells at the end of an epoch whether it is time, which it always is at the end of the run.

    Args:
        every_n_epochs: epochs between two times.
        every_n_steps: optimizer steps instead: it is time at the end of an epoch in which another
            so many have been taken, so that nothing depends on how many videos there are.
        of: whose times they are, for an error.

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
        """Whether it is time, asked in ``on_train_epoch_end``."""
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        if epoch == trainer.max_epochs or 0 < trainer.max_steps <= step:
            return True
        if self.steps is None:
            return epoch % self.epochs == 0
        length = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        return step // self.steps > (step - length) // self.steps
