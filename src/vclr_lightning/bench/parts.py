"""What a run trains, on what, and with which trainer: taken out of its stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.dataset import VideoDataset


@dataclass(frozen=True)
class Parts:
    """One process of a run.

    Attributes:
        module: what it trains.
        data: on what.
        trainer: builds a trainer from ``callbacks``, ``loggers`` and ``directory``.
    """

    module: LightningModule
    data: VideoDataModule
    trainer: Callable[..., Trainer]

    def dataset(self) -> VideoDataset:
        """Return the samples that the module reads."""
        return self.data.train_dataset(getattr(self.module, "required_views", None))


Build = Callable[[Mapping[str, Any]], Parts]
"""Gives the parts of a run in which some values, by key, are others than usual."""


class _Reached(Exception):  # noqa: N818  # no error: the stage has come to its training
    def __init__(self, module: LightningModule, data: VideoDataModule) -> None:
        super().__init__()
        self.module, self.data = module, data


def parts_of(stage: Callable[..., Any], directory: Path) -> Parts:
    """Run a stage up to where it begins to train, and return what it would train.

    Args:
        stage: a stage with the keyword argument ``trainer``, all others given.
        directory: for what the stage may write.

    Raises:
        UserError: the stage trains no network on videos, or finds a mistake.
    """
    trainer: Callable[..., Trainer] = stage.keywords["trainer"]  # type: ignore[attr-defined]

    def build(**_unused: Any) -> Trainer:
        built = trainer(callbacks=[], loggers=[], directory=directory)

        def fit(model: LightningModule, *, datamodule: Any, **_more: Any) -> None:
            raise _Reached(model, datamodule)

        built.fit = fit  # type: ignore[method-assign, assignment]
        return built

    try:
        stage(trainer=build, directory=directory, metadata={})
    except _Reached as reached:
        if isinstance(reached.data, VideoDataModule):
            return Parts(reached.module, reached.data, trainer)
    raise UserError("this stage does not train on videos; `vclr bench` measures stages that do")
