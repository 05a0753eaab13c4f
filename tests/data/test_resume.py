"""Lightning drives the loader: after any stop, training sees what it would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.loader import EpochLoader
from vclr_lightning.data.loading.workers import WorkerOptions

# Lightning reads batches with a part of torch that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

EPOCHS, BATCHES = 3, 4


class Keys(Dataset[dict[str, Any]]):
    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"epoch": key[0], "row": key[1], "valid": True}


class Recorder(pl.LightningModule):
    """Notes what every step is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Any] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        epoch, rows = batch["epoch"].tolist(), batch["row"].tolist()
        self.seen.append((self.current_epoch, batch_idx, self.global_step, epoch, rows))
        return self.weight * float(sum(rows))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class StopError(Exception):
    """The run ends here, as if it had been killed."""


class SaveAndStop(pl.Callback):
    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.hook, self.step, self.path = hook, step, path
        self.done = 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.done += 1
        self.stop("on_train_batch_end", trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.stop("on_train_epoch_end", trainer)

    def stop(self, hook: str, trainer: pl.Trainer) -> None:
        if (hook, self.done) == (self.hook, self.step):
            trainer.save_checkpoint(self.path)
            raise StopError


def fit(
    *, stop: SaveAndStop | None = None, start: Path | None = None, workers: int = 0, **given: Any
) -> list[Any]:
    module, accumulate = Recorder(), given.get("accumulate_grad_batches", 1)
    batches = EpochBatches(4 * BATCHES + 3, batch_size=4, seed=1, accumulate=accumulate)
    loader = EpochLoader(Keys(), batches, WorkerOptions(num_workers=workers))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[] if stop is None else [stop],
        **given,
    )
    try:
        trainer.fit(module, loader, ckpt_path=start)
    except StopError:
        assert stop is not None
    else:
        assert stop is None
    loader.close()
    return module.seen


def stops(accumulate: int) -> Iterator[tuple[str, int]]:
    epoch = BATCHES * accumulate
    yield from (("on_train_batch_end", step) for step in range(accumulate, 3 * epoch, accumulate))
    yield from (("on_train_epoch_end", step) for step in (epoch, 2 * epoch))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_any_stop_is_resumed_exactly(tmp_path: Path, accumulate: int) -> None:
    given = {"accumulate_grad_batches": accumulate}
    whole = fit(**given)
    assert len(whole) == EPOCHS * BATCHES * accumulate
    assert [epoch for epoch, *_ in whole] == [entry[3][0] for entry in whole]
    for hook, step in stops(accumulate):
        path = tmp_path / f"{hook}-{step}.ckpt"
        before = fit(stop=SaveAndStop(hook, step, path), **given)
        assert before == whole[:step]
        assert fit(start=path, **given) == whole[step:]


@pytest.mark.parametrize(
    "second", [("on_train_batch_end", 2), ("on_train_batch_end", 5), ("on_train_epoch_end", 5)]
)
@pytest.mark.parametrize("first", [("on_train_batch_end", 3), ("on_train_epoch_end", 4)])
def test_a_resumed_run_is_resumed_exactly(
    tmp_path: Path, first: tuple[str, int], second: tuple[str, int]
) -> None:
    if first[0] == "on_train_epoch_end":
        second = (second[0], 4 if second[0] == "on_train_epoch_end" else second[1])
    one, two = tmp_path / "one.ckpt", tmp_path / "two.ckpt"
    seen = fit(stop=SaveAndStop(*first, one))
    seen += fit(stop=SaveAndStop(*second, two), start=one)
    assert seen + fit(start=two) == fit()


def test_with_workers_and_a_limit_on_batches(tmp_path: Path) -> None:
    whole = fit(limit_train_batches=3)
    assert len(whole) == 9
    for hook, step in (("on_train_batch_end", 2), ("on_train_epoch_end", 3)):
        path = tmp_path / f"{step}.ckpt"
        before = fit(stop=SaveAndStop(hook, step, path), workers=2, limit_train_batches=3)
        assert before + fit(start=path, workers=1, limit_train_batches=3) == whole


def test_the_epoch_of_the_loader_follows_the_trainer() -> None:
    assert [entry[3] for entry in fit()] == [[epoch] * 4 for epoch in range(3) for _ in range(4)]
