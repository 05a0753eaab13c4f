"""Watch features for collapse during training, without labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vclr_lightning.callbacks.feature_callback import FeatureCallback, log_equal
from vclr_lightning.callbacks.feature_source import Features, Views
from vclr_lightning.callbacks.recent_rows import RecentRows
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.functional.collapse import (
    alignment,
    dimension_spread,
    lidar,
    rankme,
    uniformity,
)

logger = logging.getLogger(__name__)

MEASURES = ("rankme", "lidar", "spread", "alignment", "uniformity")
_ALARM: Mapping[str, float] = {"rankme": 1.5, "spread": 0.02}


class CollapseMonitor(FeatureCallback):
    """Logs label-free measures of the features of the last training samples, and warns of collapse.

    Every few batches and at the end of each epoch, of the first view of each sample:
    ``collapse/rankme`` (Garrido et al. 2023), ``collapse/spread``, the mean over the dimensions of
    the standard deviation of l2-normalised features in units of 1/sqrt(d) (1 is even, 0 is
    collapse), and ``collapse/uniformity`` (Wang and Isola 2020). Where a step encodes two views or
    more of each sample, also ``collapse/alignment`` and ``collapse/lidar`` (Thilak et al. 2024).
    With several layers, the layer's name comes before the measure's: ``collapse/layer4/rankme``.
    The formulas are in :mod:`vclr_lightning.functional.collapse`.

    Each name may be the ``monitor`` of a ``ModelCheckpoint`` or ``ResumableCheckpoint``: the best
    checkpoint is then chosen without labels. Samples of all ranks are put together. The samples
    held are part of the checkpoint, so a run that continues measures the same.

    Args:
        features, views: see :class:`~vclr_lightning.callbacks.feature_source.FeatureSource`.
        samples: number of the last samples that are measured, over all ranks; rank measures are
            never larger.
        every_n_steps: training batches between two measurements; ``None``: only after each epoch.
        alarm: least value of each measure (one of ``MEASURES``, the less the worse).
        patience: measurements in a row, in training, below the least value before the alarm.
        stop: stop training at an alarm; otherwise it is a warning, and ``collapse/alarm`` is 1.
        name: in the logs instead of ``collapse``, where there are several monitors.

    Raises:
        UserError: an argument is out of range, or, from the start of training, there is no such
            submodule.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> monitor = CollapseMonitor(features="encoder", alarm={"rankme": 8}, stop=True)
        >>> trainer = Trainer(callbacks=[monitor], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        *,
        features: Features | None = None,
        views: Views = "outside",
        samples: int = 1024,
        every_n_steps: int | None = 200,
        alarm: Mapping[str, float] | None = _ALARM,
        patience: int = 3,
        stop: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(features=features, views=views, name=name, usual="collapse")
        for name, value, least in (
            ("samples", samples, 2),
            ("every_n_steps", every_n_steps, 1),
            ("patience", patience, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name}={value} of the collapse monitor must be {least} or more")
        if unknown := sorted(set(alarm or {}) - {"rankme", "lidar", "spread"}):
            raise UserError(
                f"alarm of the collapse monitor names {', '.join(unknown)}; it takes the measures "
                "that are small after a collapse: rankme, lidar and spread"
            )
        self.samples, self.every_n_steps = samples, every_n_steps
        self.alarm, self.patience, self.stop = dict(alarm or {}), patience, stop
        self.recent = RecentRows(samples)
        self._low: dict[str, int] = {}  # measurements in a row

    def on_features(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        features: dict[str, Tensor],
        batch: Any,
    ) -> None:
        self.recent.add(features)
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self.every_n_steps and done % self.every_n_steps == 0:
            self._measure(trainer, pl_module, on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)

    def measure(self) -> dict[str, float]:
        """Return the measures of the samples held by all ranks; every rank has to call it.

        Samples whose features are not finite are left out.
        """
        values: dict[str, float] = {}
        for name, held in self.recent.gathered().items():
            rows = held[held.flatten(1).isfinite().all(dim=1)]
            first, views = rows[:, 0], rows.shape[1]
            if len(rows) < 2:
                continue
            found = {
                "rankme": rankme(first),
                "spread": dimension_spread(first).mean(),
                "uniformity": uniformity(first),
            }
            if views > 1:
                found |= {"lidar": lidar(rows), "alignment": alignment(rows)}
            values |= {self.named(name, key): float(v) for key, v in found.items()}
        return values

    def _measure(self, trainer: Trainer, pl_module: LightningModule, **options: Any) -> None:
        values = self.measure()
        if any(value != value for value in values.values()):
            return
        low = [
            (name, values[name], least)
            for measure, least in self.alarm.items()
            for layer in self.source.names
            if values.get(name := self.named(layer, measure), least) < least
        ]
        self._low = {name: self._low.get(name, 0) + 1 for name, *_ in low}
        alarms = [one for one in low if self._low[one[0]] >= self.patience]
        log_equal(pl_module, values | {f"{self.name}/alarm": float(bool(alarms))}, **options)
        for name, value, least in alarms:
            if self._low[name] == self.patience and trainer.is_global_zero:
                logger.warning(
                    "The features collapse: %s is %.3g, below %.3g in %d measurements up to batch "
                    "%d. %s.",
                    *(name, value, least, self.patience),
                    trainer.fit_loop.epoch_loop.total_batch_idx + 1,
                    "Training stops" if self.stop else "Training goes on (stop=False)",
                )
        if alarms and self.stop:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {**self.recent.state_dict(), "low": dict(self._low)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._low = dict(state_dict["low"])
        self.recent.load_state_dict(state_dict)
