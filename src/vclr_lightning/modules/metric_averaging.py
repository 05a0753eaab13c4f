"""A LightningModule that logs its training metrics as averages since the last log line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, tell_choice

_KEY = "measured"  # in a checkpoint


class MetricAveragingModule(LightningModule):
    """Averages the metrics of its training steps until the trainer logs or the epoch ends.

    Averages are over steps, over micro-batches weighted by their videos, and over ranks. Sums stay
    on the device, so no step waits for it, and go into the checkpoint, so a run that continues
    between two log lines logs the same. What is logged is read once and lies on the host: Lightning
    reads every value of the progress bar after each batch until the end of the epoch.

    Attributes:
        small_steps: whose steps are too small for half-precision weights, if any.
    """

    small_steps: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        tell_choice(self)
        self._sums: dict[tuple[str, ...], Tensor] = {}  # (n,) sums of the metrics of these names
        self._videos: dict[tuple[str, ...], int] = {}
        self._shown: Collection[str] = ()
        self._loaded: list[dict[str, Any]] = []

    @torch.no_grad()
    def log_means(
        self, values: Mapping[str, Tensor], *, videos: int, shown: Collection[str] = ()
    ) -> bool:
        """Add a micro-batch's metrics; log if this step is logged, and return whether it is.

        Args:
            values: means over the micro-batch's videos.
            videos: number of videos in this rank's micro-batch.
            shown: names for the progress bar.
        """
        trainer: Any = self._trainer
        if trainer is None or not trainer.log_every_n_steps:  # a custom training loop, or no logs
            return False
        names, self._shown = tuple(values), tuple(shown)
        new = _stacked(values)
        dtype = new.dtype
        if new.device.type != "mps":  # which has no float64
            new = new.double()
        so_far = self._sums.get(names)
        self._sums[names] = new * videos if so_far is None else so_far.add_(new, alpha=videos)
        self._videos[names] = self._videos.get(names, 0) + videos
        if (
            trainer.fit_loop._should_accumulate()
            or not trainer._logger_connector.should_update_logs
        ):
            return False
        self._log_sums(dtype)
        return True

    def on_train_epoch_end(self) -> None:
        # Of the steps since the last line. All ranks have the same values; without sync_dist
        # Lightning warns.
        self._log_sums(sync_dist=True)

    def _log_sums(self, dtype: torch.dtype = torch.float32, *, sync_dist: bool = False) -> None:
        for names, ranks in self._rows().items():
            total = distributed.average(ranks)
            means = (total[:-1] / total[-1]).to(dtype)
            if not sync_dist:  # which needs them on the device
                means = means.cpu()
            for name, mean in zip(names, means.unbind(), strict=True):
                self.log(name, mean, prog_bar=name in self._shown, sync_dist=sync_dist)
        self._sums, self._videos = {}, {}

    def log_state(self, values: Mapping[str, Tensor]) -> None:
        """Log momentary values, averaged over the ranks."""
        if values:
            means = distributed.average(_stacked(values)).cpu()
            self.log_dict(dict(zip(values, means.unbind(), strict=True)))

    def _rows(self) -> dict[tuple[str, ...], Tensor]:
        """Return the sums, followed by the number of videos."""
        return {
            names: torch.cat([sums, sums.new_full((1,), self._videos[names])])
            for names, sums in self._sums.items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = [
            {"names": list(names), "ranks": distributed.gather(row[None]).cpu()}
            for names, row in self._rows().items()
        ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._loaded = checkpoint.get(_KEY, [])

    def on_fit_start(self) -> None:
        check_precision(type(self), self.trainer.precision)
        self._sums, self._videos = {}, {}
        for part in self._loaded:
            ranks: Tensor = part["ranks"]
            if len(ranks) != distributed.world_size():  # only the sum of all counts
                ranks = torch.zeros(distributed.world_size(), ranks.shape[1]).to(ranks)
                ranks[0] = part["ranks"].sum(0)
            *_, videos = row = ranks[distributed.rank()].to(self.device)
            names = tuple(part["names"])
            self._sums[names], self._videos[names] = row[:-1].clone(), int(videos)
        self._loaded = []


def _stacked(values: Mapping[str, Tensor]) -> Tensor:
    """In the precision of the first, at least float32."""
    dtype = torch.promote_types(next(iter(values.values())).dtype, torch.float32)
    return torch.stack([value.detach().to(dtype) for value in values.values()])


def check_precision(module: object, precision: object) -> None:
    """Refuse half-precision weights for a class of modules whose ``small_steps`` they would lose.

    Raises:
        UserError: the trainer's precision is 16-true or bf16-true.
    """
    whose = getattr(module, "small_steps", "")
    if whose and str(precision) in ("16-true", "bf16-true"):
        raise UserError(
            f"trainer.precision={precision} keeps the weights in half precision, in which the small"
            f" steps of {whose} are lost; take 16-mixed or bf16-mixed"
        )
