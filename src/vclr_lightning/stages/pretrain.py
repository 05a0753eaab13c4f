"""Train a backbone without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.callbacks.non_finite import NonFiniteGuard
from vclr_lightning.callbacks.online_evaluation import OnlineEvaluation
from vclr_lightning.callbacks.restoring import restoring
from vclr_lightning.callbacks.run_log import note_table
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import (
    Callback,
    LightningDataModule,
    LightningModule,
    Logger,
    Trainer,
)
from vclr_lightning.core.screen import screen, wrote
from vclr_lightning.models import load_initial_weights
from vclr_lightning.results import Result
from vclr_lightning.results.curves import gains

logger = logging.getLogger(__name__)


def pretrain(
    *,
    module: LightningModule,
    data: LightningDataModule,
    trainer: Callable[..., Trainer],
    callbacks: Mapping[str, Callback | None],
    loggers: Mapping[str, Logger | None],
    directory: str | Path,
    init: str | Path | None = None,
    monitor: str | None = None,
    checkpoint: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Result:
    """Train ``module`` on ``data``, or continue from ``checkpoint``.

    Args:
        module: what to train.
        data: on what.
        trainer: builds the trainer from ``callbacks``, ``loggers`` and ``directory``.
        callbacks: by name; ``None`` where one is left out.
        loggers: by name.
        directory: the run's folder.
        init: weights to start from, where there is no ``checkpoint``.
        monitor: name of the measure to return first.
        checkpoint: to go on from.
        metadata: plain values to keep in the checkpoints.

    Returns:
        The last values of everything logged, ``best``, the best of ``monitor``, and under
        ``start/`` what the evaluation during training measured before the first step.

    Raises:
        UserError: the weights do not fit, or whatever a part of the run finds wrong.
    """
    for name, callback in callbacks.items():
        if callback is not None and not isinstance(callback, Callback):
            raise UserError(
                f"callbacks.{name} is no callback of Lightning; give it a _target_, or leave it out"
            )
    watching = [callback for callback in callbacks.values() if callback is not None]
    online = next((c for c in watching if isinstance(c, OnlineEvaluation)), None)
    if online is not None:
        _check_monitor(monitor, online, data)
        _check_evaluated_clips(module, data)
    fitting = trainer(
        callbacks=watching,
        loggers=[sink for sink in loggers.values() if sink is not None],
        directory=directory,
    )
    saving = next((c for c in watching if isinstance(c, ResumableCheckpoint)), None)
    if saving is not None:
        saving.metadata.update(metadata or {})
    for callback in watching:
        if isinstance(callback, NonFiniteGuard) and callback.path_of is None:
            callback.path_of = _paths(data)
    if checkpoint is None:
        _initialise(module, init, fitting)
    ckpt = None if checkpoint is None else str(checkpoint)
    try:
        with restoring(fitting):
            fitting.fit(module, datamodule=data, ckpt_path=ckpt)
    except BaseException:
        data.teardown("fit")  # its workers too would live as long as the error
        raise
    if saving is not None and saving.resumed_step == fitting.global_step:
        logger.info("the run in %s is complete; another name=... begins a new one", directory)
    elif saving is not None and monitor is not None and saving.best_score is None:
        logger.warning(
            "monitor=%s was never logged, so there is no best.ckpt; logged were %s",
            *(monitor, ", ".join(sorted(fitting.callback_metrics)) or "no values"),
        )
    last = Path(directory) / "last.ckpt"
    if saving is not None and is_rank_zero() and last.exists():
        wrote(last)
    values = {} if saving is None else dict(saving.logged)
    values |= {name: float(value) for name, value in fitting.callback_metrics.items()}
    values |= {} if online is None else online.start
    for gain in gains(values):
        logger.info(gain)
    if saving is not None and monitor is not None and saving.best_score is not None:
        values["best"] = saving.best_score
    return Result(title="Pretraining", numbers=values, page="")


def _check_evaluated_clips(module: Any, data: Any) -> None:
    """Refuse clips that the evaluation cannot encode, whatever those of the samplers are.

    Raises:
        UserError: single frames for a 3D network, or clips for a 2D one.
    """
    pixels, frames = getattr(module, "pixels", None), getattr(data, "frames_per_clip", None)
    if pixels is None or frames is None:  # a module or data of the user's
        return
    try:
        pixels.check_length(frames)
    except UserError as error:
        raise UserError(f"the evaluation during training: {error}") from error


def _check_monitor(monitor: str | None, online: OnlineEvaluation, data: Any) -> None:
    """Refuse a measure that this run would never log, before anything is trained.

    Raises:
        UserError: it needs labels, or an evaluation, that are not there.
    """
    if monitor is None or not monitor.startswith("val/"):
        return
    measures = {"val/instance_r1": online.instance, "val/knn_r1": online.knn}
    if monitor not in measures:
        raise UserError(
            f"monitor={monitor} is nothing that callbacks.online measures; take one of "
            f"{', '.join(measures)}, or a measure of training such as train/loss"
        )
    if not measures[monitor]:
        raise UserError(f"monitor={monitor} is not measured; turn it on in callbacks.online")
    held_out: Any = getattr(data, "val", None) or ()
    labels = [held_out.label(row) for row in range(len(held_out))]
    if monitor == "val/knn_r1" and labels and max(labels) < 0:
        raise UserError(
            "monitor=val/knn_r1 needs labels, and none of the held-out videos has one; take"
            " monitor=val/instance_r1, which needs none"
        )


def _initialise(module: LightningModule, init: str | Path | None, trainer: Trainer) -> None:
    for sink in trainer.loggers:
        if trainer.is_global_zero and callable(rewind := getattr(sink, "rewind", None)):
            rewind(0)
    if init is None or str(init).lower() == "none":
        return
    report = load_initial_weights(module, init)
    if trainer.is_global_zero:
        screen(stderr=True).print(report.table())
        note_table(report.table())


def _paths(data: Any) -> Callable[[int], str] | None:
    """Names the file of a training video; looked up when a run fails, never before."""
    table = getattr(data, "train", None)
    if table is None:
        return None
    known: dict[int, int] = {}

    def path_of(video_id: int) -> str:
        if not known:
            known.update({table.video_id(row): row for row in range(len(table))})
        return str(table.path(known[video_id])) if video_id in known else ""

    return path_of
