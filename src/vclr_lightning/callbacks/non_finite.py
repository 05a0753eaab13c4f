"""Stop at the first loss that is not finite, and list the videos of its batch."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.distributed import gather_objects, max_over_ranks
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.overrides import shell_override

_SHOWN = 5


class NonFiniteLossError(UserError):
    """A loss was infinite or not a number; the message names the step and the samples."""


class NonFiniteGuard(CheckedCallback):
    """Stops all ranks when the loss of any is infinite or not a number.

    The loss is checked before its backward pass; on an accelerator one batch later, so that nothing
    waits for the device, but always before a checkpoint is written: the last one stays good. Steps
    that a gradient scaler skips are no concern: their loss is finite, only the scaled gradients are
    not. Works with any LightningModule under automatic optimization.

    Args:
        directory: folder of ``non_finite.csv``, which lists the batch's samples.
        video_ids: reads the samples' ids from a batch; the default reads ``batch["video_id"]``.
        path_of: returns the file of an id, for the list and the message.

    Raises:
        NonFiniteLossError: on every rank.

    Example:
        >>> guard = NonFiniteGuard(directory="outputs/run")
        >>> guard.path.name
        'non_finite.csv'
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        video_ids: Callable[[Any], Any] | None = None,
        path_of: Callable[[int], str] | None = None,
    ) -> None:
        self.path = Path(directory) / "non_finite.csv"
        self.video_ids = video_ids or _video_ids
        self.path_of = path_of
        self._batch: Any = None
        self._pending: tuple[Tensor, Any, int, Any] | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        finite = torch.isfinite(loss.detach()).all()
        ids = self.video_ids(self._batch)
        self._batch = None
        if not finite.is_cuda:
            self._pending = (finite, ids, trainer.global_step, None)
            self._check(trainer)
            return
        # The copy runs beside the device's work; reading it one batch later waits for nothing.
        self._check(trainer)
        host = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending = (host, ids, trainer.global_step, event)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer)
        norms = torch._foreach_norm([p.detach() for p in pl_module.parameters()])
        finite = not norms or bool(torch.stack([n.float() for n in norms]).isfinite().all())
        if max_over_ranks(not finite):
            raise NonFiniteLossError(
                f"the weights are not finite, or too large to compute with, after step"
                f" {trainer.global_step - 1}, and are not saved; {self._advice()}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        finite, ids, step, event = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        bad = not bool(finite)
        if not max_over_ranks(bad):
            return
        own = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        samples = [
            (rank, int(video_id), self.path_of(int(video_id)) if self.path_of else "")
            for rank, rank_ids in enumerate(gather_objects(own if bad else []))
            for video_id in rank_ids
        ]
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="") as file:
                csv.writer(file).writerows([("rank", "video_id", "path"), *samples])
        shown = ", ".join(f"{i} ({path})" if path else str(i) for _, i, path in samples[:_SHOWN])
        more = f" and {len(samples) - _SHOWN} more" if len(samples) > _SHOWN else ""
        raise NonFiniteLossError(
            f"the loss is not finite in step {step}; its videos {shown}{more} are listed in"
            f" {shlex.quote(str(self.path))}; {self._advice()}"
        )

    def _advice(self) -> str:
        """What to do: continuing would only repeat the failure."""
        last = self.path.with_name("last.ckpt")
        how = "with a lower learning rate, or without what is broken"
        if not last.exists():
            return f"begin a new run {how}"
        begin = f"name=NEW {shell_override('init', last)}"
        return f"the last checkpoint is intact: begin a new run {how}, from it ({begin})"


def _video_ids(batch: Any) -> Any:
    return batch["video_id"] if isinstance(batch, dict) and "video_id" in batch else []
