"""Checkpoints from which a run continues as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.callbacks.checkpoint_io import CheckpointFiles
from vclr_lightning.callbacks.continuation import Continuation
from vclr_lightning.callbacks.restoring import tell_never_logged, undo_fetch
from vclr_lightning.core.distributed import failing_together, gather_objects
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import Checkpoint, LightningModule, Trainer, check_trainer

LAST, BEST = "last.ckpt", "best.ckpt"


class ResumableCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` so that ``trainer.fit(ckpt_path=...)`` continues bit for bit.

    Works with any LightningModule that logs with ``on_step=True`` (averages over an epoch are not
    part of a Lightning checkpoint). A save falls between two optimizer steps, when the last one has
    been logged completely: after every ``every_n_steps`` steps and after each epoch, including its
    ``on_train_epoch_end`` hooks, or, where ``min_minutes`` have not passed by then, as soon as they
    have; and at the end. The train dataloaders continue within the epoch: by their ``state_dict``,
    or by reading its first batches once more, which is exact where a loader repeats itself after
    the same random numbers, as torch's do; the log says where it is not. The state of the global
    random generators is kept for each rank; another number of ranks continues, and the log says
    what differs. Gradients that a module under manual optimization accumulates are not saved.

    With ``monitor``, ``best.ckpt`` is the checkpoint of the epoch after which the logged value was
    best; until the next save it waits in memory. Files are written atomically when the trainer has
    :class:`~vclr_lightning.callbacks.checkpoint_io.AtomicCheckpointIO` among its plugins. Loggers
    with ``rewind(step)`` drop their rows from ``step`` on at the start, which is 0 for a new run;
    those with ``sync()`` put their rows onto the disk before a checkpoint.

    Args:
        directory: folder of the files.
        every_n_steps: optimizer steps between two saves within an epoch.
        min_minutes: least time between two saves; ``None``: such that they take at most 2 % of the
            time, by the duration of the last one, but never more than half an hour.
        background: copy the state to the host and write it during training; ``None``: on
            accelerators only, since a copy on the CPU costs memory and gains little.
        monitor: name of the logged metric that selects ``best.ckpt``; ``None`` for no such file.
        mode: ``"max"`` or ``"min"``: which values of ``monitor`` are better.
        fast_forward: read the consumed batches of an epoch once more where a train dataloader has
            no state; not where a sampler or the data module restores the position by itself.
        metadata: plain values to keep in the checkpoint under ``"metadata"``.
        export: called with the module and a path to export the backbone beside each checkpoint, as
            ``last.backbone.safetensors`` and ``best.backbone.safetensors``.

    Attributes:
        logged: the last values of everything that was logged, when training ends.

    Raises:
        UserError: the disk is full (the checkpoint before stays intact).

    Example:
        >>> checkpoint = ResumableCheckpoint(directory="outputs/run", monitor="val/r1")
        >>> checkpoint.last_path.name
        'last.ckpt'
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        every_n_steps: int = 500,
        min_minutes: float | None = None,
        background: bool | None = None,
        monitor: str | None = None,
        mode: str = "max",
        fast_forward: bool = True,
        metadata: Mapping[str, Any] | None = None,
        export: Callable[[LightningModule, Path], Any] | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise UserError(f"every_n_steps={every_n_steps} of the checkpoint must be 1 or more")
        if mode not in ("max", "min"):
            raise UserError(f"mode={mode} of the checkpoint must be max or min")
        self.directory = Path(directory)
        self.every_n_steps = every_n_steps
        self.background = background
        self.monitor = monitor
        self.mode = mode
        self.metadata = dict(metadata or {})
        self.export = export
        self.best_score: float | None = None
        self.logged: dict[str, float] = {}
        self.saved_step = self.resumed_step = -1
        self.last_path = self.directory / LAST
        self._files = CheckpointFiles(
            last=self.last_path, best=self.directory / BEST, min_minutes=min_minutes
        )
        self._logged_steps = 0
        self._due = self._is_best = False
        self._boundary: str | None = None  # "batch" or "end" while this callback saves
        self._continuation = Continuation(fast_forward=fast_forward)
        self._loader_states: list[dict[str, Any]] | None = None

    @property
    def best_model_path(self) -> str:
        """The best checkpoint or ``""``, for ``ckpt_path="best"``."""
        return str(self._files.best) if self._files.best.exists() else ""

    @best_model_path.setter
    def best_model_path(self, path: str) -> None:
        """Accept the path that Lightning brings back from processes it has spawned: the same."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_trainer(trainer)
        self._files.clear()
        if stage == "fit":
            self._continuation.watch(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._continuation.unwatch(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(set(steps := gather_objects(self.resumed_step))) > 1:
            raise UserError(
                f"the processes continue from different steps ({', '.join(map(str, steps))}); the"
                f" run's folder {self.directory} must be on a disk that all machines share"
            )
        if trainer.is_global_zero:
            for sink in trainer.loggers:
                if callable(rewind := getattr(sink, "rewind", None)):
                    rewind(self._logged_steps)
        self._continuation.start(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        saved, every = max(self.saved_step, 0), self.every_n_steps
        self._due |= trainer.global_step // every > saved // every  # a batch may be several steps
        may_save = (self._due or self._files.writing) and self._files.poll()
        if self._due and may_save:
            self.save(trainer, wait=False)
        elif self._is_best and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            state, self._is_best = self._state(trainer, "batch"), False
            self._export(trainer, "best")
            self._files.keep_best(state)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Before the next batch is fetched: the position counts consumed batches, not prefetched.
        if (loader := trainer.fit_loop._combined_loader) is not None:
            self._loader_states = loader._state_dicts()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._due = True
        if self.monitor is None:
            return
        value = trainer.callback_metrics.get(self.monitor)
        # A value left from an earlier epoch is never better than itself.
        score = gather_objects(None if value is None else float(value))[0]
        if score is not None and self._better(score):
            self.best_score, self._is_best = score, True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "end", wait=True)
        tell_never_logged(trainer, self.monitor, self.best_score)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._files.abandon()

    def save(self, trainer: Trainer, *, wait: bool = True) -> None:
        """Save now; only from an ``on_train_batch_start`` hook, between two optimizer steps.

        With ``wait``, return when the checkpoint is on the disk.
        """
        if self._loader_states is not None and trainer.global_step > self.saved_step:
            self._save(trainer, "batch", wait=wait)
        elif wait:
            self._files.finish()

    def _save(self, trainer: Trainer, boundary: str, *, wait: bool) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # a trial of the code, which must not replace a run's checkpoint
        self._files.begin()
        for sink in trainer.loggers:
            sink.save()
            if callable(sync := getattr(sink, "sync", None)):
                sync()  # what has been logged is on the disk before the checkpoint that records it
        state = self._state(trainer, boundary)
        self._export(trainer, *(["best", "last"] if self._is_best else ["last"]))
        on_cpu = trainer.lightning_module.device.type == "cpu"
        background = not on_cpu if self.background is None else self.background
        io = trainer.strategy.checkpoint_io
        self._files.write(state, io, is_best=self._is_best, background=background and not wait)
        self.saved_step = trainer.global_step
        self._due = self._is_best = False

    def _state(self, trainer: Trainer, boundary: str) -> dict[str, Any]:
        self._boundary = boundary
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        self._boundary = None
        return state

    def _export(self, trainer: Trainer, *stems: str) -> None:
        with failing_together():
            if (export := self.export) is not None and trainer.is_global_zero:
                for stem in stems:
                    path = self.directory / f"{stem}.backbone.safetensors"
                    export(trainer.lightning_module, path)

    def _better(self, score: float) -> bool:
        if self.best_score is None:
            return score == score
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._boundary is None:
            return  # saved by other code, at another moment
        loop = checkpoint["loops"]["fit_loop"]
        if self._boundary == "batch":
            undo_fetch(loop["epoch_loop.batch_progress"])
            if self._loader_states:
                loop["state_dict"]["combined_loader"] = self._loader_states
        self._continuation.save(trainer, checkpoint, fetched=self._boundary == "batch")
        checkpoint["metadata"] = self.metadata
        if self._boundary == "end":  # for stages after training, even those of another run
            self.logged |= {name: float(v) for name, v in trainer.callback_metrics.items()}
            checkpoint["metadata"] = self.metadata | {"logged": self.logged}
        # Optimizer steps whose rows are complete in the logs.
        checkpoint["logged_steps"] = int(loop["epoch_loop.state_dict"]["_batches_that_stepped"])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.saved_step = self.resumed_step = int(checkpoint["global_step"])
        self._continuation.load(trainer, checkpoint)
        self.logged = dict(checkpoint.get("metadata", {}).get("logged", {}))
        self._logged_steps = int(checkpoint.get("logged_steps", checkpoint["global_step"]))

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("monitor") == self.monitor:
            self.best_score = state_dict["best_score"]
