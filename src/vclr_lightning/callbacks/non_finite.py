"""Stop at the first loss that is not finite, and list the samples of its batch."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.core.distributed import gather_objects, max_over_ranks
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.overrides import shell_override

_SHOWN = 5
_IDS = ("video_id", "id", "ids", "index", "name", "path", "file")


class NonFiniteLossError(UserError):
    """A loss was infinite or not a number; the message names the step and the samples."""


class NonFiniteGuard(CheckedCallback):
    """Stops all ranks when the loss of any is infinite or not a number.

    Each loss is checked before its backward pass; on an accelerator one loss later, so that nothing
    waits for the device, but always before a checkpoint is written: the last one stays good. Steps
    that a gradient scaler skips are no concern: their loss is finite, only the scaled gradients are
    not. Works with any LightningModule, under manual optimization where it uses
    ``manual_backward``.

    Args:
        directory: folder of ``non_finite.csv``, which lists the batch's samples; by default the
            trainer's ``default_root_dir``.
        ids: reads the samples' ids, numbers or strings, from a batch; by default those of a mapping
            under ``video_id``, ``id``, ``ids``, ``index``, ``name``, ``path`` or ``file``.
        path_of: returns the file of an id, for the list and the message.
        unit: what samples are called in the message.
        restart: arguments of a command that begins a new run from the weights of a checkpoint, to
            the last of which its path is given, such as ``"name=NEW init"``.

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
        directory: str | Path | None = None,
        ids: Callable[[Any], Any] | None = None,
        path_of: Callable[[Any], str] | None = None,
        unit: str = "samples",
        restart: str = "",
    ) -> None:
        self.directory = None if directory is None else Path(directory)
        self.ids = ids or _ids
        self.path_of = path_of
        self.unit = unit
        self.restart = restart
        self._batch: Any = None
        self._pending: tuple[Tensor, Any, str, Any] | None = None

    @property
    def path(self) -> Path:
        """The list of samples."""
        return (self.directory or Path()) / "non_finite.csv"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.directory = self.directory or Path(trainer.default_root_dir)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        finite = torch.isfinite(loss.detach()).all()
        ids = self.ids(self._batch)
        batch = f"batch {trainer.fit_loop.batch_idx} of epoch {trainer.current_epoch}"
        where = f"in step {trainer.global_step} ({batch})"
        if not finite.is_cuda:
            self._pending = (finite, ids, where, None)
            self._check(trainer)
            return
        # The copy runs beside the device's work; reading it one batch later waits for nothing.
        self._check(trainer)
        host = torch.empty((), dtype=torch.bool, pin_memory=True)
        host.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending = (host, ids, where, event)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer)
        # Those that are trained: what is fixed may be -inf (masks) or integers.
        trained = [p.detach() for p in pl_module.parameters() if p.requires_grad]
        norms = torch._foreach_norm(trained) if trained else []
        finite = not norms or bool(torch.stack([n.float() for n in norms]).isfinite().all())
        if max_over_ranks(not finite):
            raise NonFiniteLossError(
                f"the weights are not finite, or too large to compute with, after step"
                f" {trainer.global_step - 1}, and are not saved; {self._advice(trainer)}"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        finite, ids, where, event = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        bad = not bool(finite)
        if not max_over_ranks(bad):
            return
        own = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        samples = [
            (rank, sample, self.path_of(sample) if self.path_of else "")
            for rank, rank_ids in enumerate(gather_objects(own if bad else []))
            for sample in rank_ids
        ]
        raise NonFiniteLossError(
            f"the loss is not finite {where}; {self._listed(trainer, samples)};"
            f" {self._advice(trainer)}"
        )

    def _listed(self, trainer: Trainer, samples: list[tuple[int, Any, str]]) -> str:
        if not samples:
            return f"its {self.unit} have no ids in the batch that could be listed"
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="") as file:
                csv.writer(file).writerows([("rank", "id", "path"), *samples])
        shown = ", ".join(f"{i} ({path})" if path else str(i) for _, i, path in samples[:_SHOWN])
        more = f" and {len(samples) - _SHOWN} more" if len(samples) > _SHOWN else ""
        return f"its {self.unit} {shown}{more} are listed in {shlex.quote(str(self.path))}"

    def _advice(self, trainer: Trainer) -> str:
        """What to do: continuing would only repeat the failure."""
        how = "with a lower learning rate, or without what is broken"
        last = _last_checkpoint(trainer)
        if last is None:
            return f"begin a new run {how}"
        *options, key = (self.restart or "weights").split()
        begin = shell_override(key, last) if self.restart else shlex.quote(str(last))
        begin = " ".join([*options, begin])
        return f"the last checkpoint is intact: begin a new run {how}, from its weights ({begin})"


def _last_checkpoint(trainer: Trainer) -> Path | None:
    """Return the newest checkpoint that the trainer's callbacks have written."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        paths = [getattr(callback, name, "") for name in ("last_model_path", "best_model_path")]
        if isinstance(callback, ResumableCheckpoint):
            paths = [callback.last_path]
        for path in paths:
            if path and Path(path).exists():
                return Path(path)
    return None


def _ids(batch: Any) -> Any:
    """Return the ids that stand in a batch under a usual name."""
    found = batch if isinstance(batch, Mapping) else {}
    for name in _IDS:
        ids = found.get(name)
        if (isinstance(ids, Tensor) and ids.ndim == 1) or isinstance(ids, list | tuple):
            return ids
    return []
