"""Count, list and log the videos that cannot be read, and stop the run at too many."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from vclr_lightning.core.distributed import gather_objects, is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.data.loading.rejection_log import RejectionLog

logger = logging.getLogger(__name__)

_NAMED = 100  # in the log: transient errors may recur in every epoch


class RejectionWriter(CheckedCallback):
    """Writes ``rejected.csv``, logs ``data/rejected``, and stops past the allowed share.

    Reads ``rejected`` and ``host_ids``, or without it ``video_id``, of a
    :class:`~vclr_lightning.core.types.Batch`; other data modules are ignored. The number of videos
    and the allowed share are the data module's ``train`` and ``max_rejected_share``. Ranks exchange
    their rejections every ``every_n_steps`` batches and at the end of an epoch. The checkpoint
    keeps the list. A video that is read again leaves it.

    Raises:
        UserError: too many of the videos cannot be read.

    Example:
        >>> RejectionWriter(directory="outputs/run").path.name
        'rejected.csv'
    """

    def __init__(self, *, directory: str | Path, every_n_steps: int = 20) -> None:
        if every_n_steps < 1:
            raise UserError(f"every_n_steps={every_n_steps} of the rejections must be 1 or more")
        self.path = Path(directory) / "rejected.csv"
        self.every_n_steps = every_n_steps
        self._log: RejectionLog | None = None
        self._state: dict[str, Any] | None = None
        self._rejected: list[Any] = []
        self._seen: list[int] = []
        self._named = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "max_rejected_share"):
            return
        self._log = RejectionLog(
            self.path if trainer.is_global_zero else None,
            num_videos=len(data.train),
            max_share=data.max_rejected_share,
        )
        if self._state is not None:
            self._log.load_state_dict(self._state["log"])
            # Also of another number of ranks.
            for rejected, seen in self._state["pending"][trainer.global_rank :: trainer.world_size]:
                self._rejected += rejected
                self._seen += seen
            self._state = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._log is None:
            return
        self._rejected += batch.get("rejected", [])
        # A read of what is on the device would wait for it.
        self._seen += batch["host_ids"] if "host_ids" in batch else batch["video_id"].tolist()
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._exchange()
        if trainer._logger_connector.should_update_logs:
            count = float(len(self._log))
            pl_module.log("data/rejected", count, batch_size=1, rank_zero_only=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._log is not None:
            self._exchange()

    def _exchange(self) -> None:
        assert self._log is not None
        found = gather_objects((self._rejected, self._seen))
        rejected = [item for own, _ in found for item in own]
        seen = [video for _, own in found for video in own]
        for new in self._log.add(rejected, seen=seen):  # the same on all ranks
            self._named += 1
            if is_rank_zero() and self._named <= _NAMED:
                logger.warning("%s cannot be read: %s", new["path"], new["reason"])
                if self._named == _NAMED:
                    logger.warning(
                        "further unreadable videos are listed in %s only",
                        shlex.quote(str(self.path)),
                    )
        self._rejected, self._seen = [], []
        self._log.check()

    def state_dict(self) -> dict[str, Any]:
        if self._log is None:
            return {}
        # Kept unexchanged, so that a continued run exchanges at the same batches.
        pending = [list(own) for own in gather_objects((self._rejected, self._seen))]
        return {"log": self._log.state_dict(), "pending": pending}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict
