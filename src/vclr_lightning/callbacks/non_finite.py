"""Stop at the first loss that is not a number, and say which videos made it."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vclr_lightning.core.distributed import gather_objects, max_over_ranks
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import typed

_SHOWN = 5


class NonFiniteLossError(UserError):
    """A loss was infinite or not a number; the message names the step and the samples."""


class NonFiniteGuard(Callback):
    """Stops all ranks when the loss of any is infinite or not a number.

    The loss is checked before its backward pass; on an accelerator one batch later, so that
    nothing waits for the device, but always before a checkpoint is written: the last one stays
    good. A gradient scaler's skipped steps are not its business: there the loss is finite and the
    scaled gradients are not. Works with any LightningModule under automatic optimization.

    Args:
        directory: where ``non_finite.csv`` lists the batch's samples.
        video_ids: reads the samples' ids off a batch; the default reads ``batch["video_id"]``.
        path_of: names the file of an id, for the list and the message.

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
        video_ids: Callable[[Any], list[int]] | None = None,
        path_of: Callable[[int], str] | None = None,
    ) -> None:
        self.path = Path(directory) / "non_finite.csv"
        self.video_ids = video_ids or _ids_of
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
        flag = torch.isfinite(loss.detach()).all()
        ids = self.video_ids(self._batch)
        self._batch = None
        if not flag.is_cuda:
            self._pending = (flag, ids, trainer.global_step, None)
            self._check(trainer)
            return
        # The copy runs beside the device's work; reading it one batch later waits for nothing.
        self._check(trainer)
        host = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending = (host, ids, trainer.global_step, event)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer)
        norms = torch._foreach_norm([p.detach() for p in pl_module.parameters()])
        if norms and max_over_ranks(
            not bool(torch.stack([n.float() for n in norms]).isfinite().all())
        ):
            raise NonFiniteLossError(
                f"the weights are not finite, or too large to compute with, after step"
                f" {trainer.global_step - 1}, and are not saved; {self._advice()}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        flag, ids, step, event = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        bad = not bool(flag)
        if not max_over_ranks(bad):
            return
        rows = [
            (rank, video_id)
            for rank, (rank_bad, rank_ids) in enumerate(gather_objects((bad, _to_list(ids))))
            if rank_bad
            for video_id in rank_ids
        ]
        named = [(rank, i, self.path_of(i) if self.path_of else "") for rank, i in rows]
        if trainer.is_global_zero:
            self._write(named)
        raise NonFiniteLossError(self._message(named, step))

    def _write(self, named: list[tuple[int, int, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["rank", "video_id", "path"])
            writer.writerows(named)

    def _message(self, named: list[tuple[int, int, str]], step: int) -> str:
        shown = ", ".join(f"{i} ({path})" if path else str(i) for _, i, path in named[:_SHOWN])
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return (
            f"the loss is not finite in step {step}; its videos {shown}{more} are listed in"
            f" {shlex.quote(str(self.path))}; {self._advice()}"
        )

    def _advice(self) -> str:
        """What to do; the run itself goes on only with the values that led here."""
        last = self.path.with_name("last.ckpt")
        how = "with a lower learning rate, or without what is broken"
        if not last.exists():
            return f"begin a new run {how}"
        begin = f"name=NEW {typed('init', last)}"
        return f"the last checkpoint is intact: begin a new run {how}, from it ({begin})"


def _ids_of(batch: Any) -> Any:
    return batch["video_id"] if isinstance(batch, dict) and "video_id" in batch else []


def _to_list(ids: Any) -> list[int]:
    return [int(i) for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]
