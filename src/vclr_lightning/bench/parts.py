"""What a run trains, on what, and with which trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.epochs import EpochBatches, epoch_order, micro_batch_size


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
        return self.data.train_dataset(
            getattr(self.module, "required_views", None),
            getattr(self.module, "required_targets", ()),
        )

    def micro_batch(self) -> int:
        """Return the videos of a micro-batch.

        Raises:
            UserError: the batch cannot be split evenly, or there are too few videos for it.
        """
        trainer = self.trainer(callbacks=[], loggers=[], directory=None)
        accumulate, size = trainer.accumulate_grad_batches, self.data.batch_size
        EpochBatches(len(self.data.train), batch_size=size, accumulate=accumulate)
        return micro_batch_size(size, accumulate=accumulate)

    def keys(self) -> Iterator[tuple[int, int]]:
        """Return ``(epoch, row)`` of the samples of training in their order, without end."""
        for epoch in count():
            order = epoch_order(len(self.data.train), seed=self.data.seed, epoch=epoch)
            yield from ((epoch, int(row)) for row in order)


Build = Callable[[Mapping[str, Any]], Parts]
"""Returns the parts of a run with some settings changed, given by key."""


class _AtFit(Exception):  # noqa: N818  # no error: the stage has reached its training
    pass


def parts_of(stage: Callable[..., Any], directory: Path) -> Parts:
    """Run a stage up to ``Trainer.fit`` and return what it would train.

    Args:
        stage: a stage with the keyword argument ``trainer``, all others given.
        directory: for what the stage may write.

    Raises:
        UserError: the stage trains no network on videos, or finds a mistake.
    """
    trainer: Callable[..., Trainer] = stage.keywords["trainer"]  # type: ignore[attr-defined]

    def build(**_unused: Any) -> Trainer:
        def fit(model: LightningModule, *, datamodule: Any, **_more: Any) -> None:
            raise _AtFit(model, datamodule)

        built = trainer(callbacks=[], loggers=[], directory=directory)
        built.fit = fit  # type: ignore[method-assign, assignment]
        return built

    try:
        stage(trainer=build, directory=directory, metadata={})
    except _AtFit as reached:
        module, data = reached.args
        if isinstance(data, VideoDataModule):
            return Parts(module, data, trainer)
    raise UserError("this stage does not train on videos; `vclr bench` measures stages that do")
