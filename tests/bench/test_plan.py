"""`vclr plan` on small real videos, and what it computes from its measurements."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vclr_lightning.bench import Length
from vclr_lightning.bench.largest_batch import (
    LargestBatch,
    estimate_batch,
    fits_device,
    free_memory,
    try_batches,
)
from vclr_lightning.bench.parts import Parts
from vclr_lightning.bench.step_parts import STEP_PARTS, StepParts
from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer

Capture = pytest.CaptureFixture[str]

TINY = [
    *("backbone=tiny", "backbone.width=4", "backbone.stages=1", "trainer=cpu", "image_size=32"),
    *("batch_size=4", "data.holdout=0.34", "queue_size=64", "epochs=5", "data.num_workers=0"),
]


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: Callable[[Path], str]
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    level = logging.getLogger("vclr_lightning").level
    yield
    logging.getLogger("vclr_lightning").setLevel(level)


def test_a_run_is_planned(video_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Of 18 videos 12 are trained on; `inter` queues a key for each of three segments."""
    assert main(["plan", "--seconds", "1", "--json", *TINY, f"data.root={video_folder}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["videos"], found["batch"], found["measured"]) == (12, 4, 4)
    assert (found["epoch_steps"], found["steps"]) == (3, 15)
    assert list(found["parts"]) == list(STEP_PARTS)
    assert all(seconds >= 0 for seconds in found["parts"].values())
    assert found["parts"]["momentum"] > 0 < found["parts"]["optimizer"]
    whole = sum(found["parts"].values())
    assert 0.5 * found["step"] < whole <= 1.01 * found["step"]
    pace = 1 / (found["sample"] + found["step"] / 4)  # no workers
    assert found["seconds"] == pytest.approx(15 * 4 / pace)
    assert found["memory"] > 0
    assert found["largest"] == {"videos": 12, "tried": False, "limited": True}
    assert found["disk"]["features"] == 12 * 8 * 4
    files = sum(path.stat().st_size for path in video_folder.rglob("*.mp4"))
    assert 0.1 < found["disk"]["prepared"] / files < 10
    queues = {queue["name"]: queue for queue in found["queues"]}
    assert {queue["size"] for queue in queues.values()} == {64}
    assert queues["inter"]["epoch"] == 36
    assert queues["inter"]["stale"]
    assert any("queue_size=36 avoids that" in warning for warning in found["warnings"])
    assert not (tmp_path / "outputs").exists()


def test_the_checkpoint_of_a_run_has_the_planned_size(
    video_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    from vclr_lightning.bench import step_parts as module

    sizes = []
    plan_end = module.StepParts.on_train_end

    def saved(self: StepParts, trainer: Trainer, pl_module: LightningModule) -> None:
        plan_end(self, trainer, pl_module)
        trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=False)
        sizes.append(((tmp_path / "one.ckpt").stat().st_size, self.checkpoint))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.StepParts, "on_train_end", saved)
        arguments = ["--seconds", "1", *TINY, "queue_size=30000", "monitor=null"]
        assert main(["plan", *arguments, f"data.root={video_folder}"]) == 0
    ((size, planned),) = sizes
    assert planned == pytest.approx(size, rel=0.05)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "for 1 with all state" in shown
    assert "stale keys of the same" in " ".join(shown.split())


def test_mistakes_are_one_sentence(capsys: Capture) -> None:
    assert main(["plan", "--seconds", "0"]) == 2
    assert main(["plan", "stage=retrieval", "ckpt=none"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--seconds 0 must be 1 or more" in lines[0]
    assert "does not train on videos" in lines[1]


class Slow(LightningModule):
    """Parts of known duration, without anything after the optimizer's step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def test_parts_and_bytes_of_another_module() -> None:
    timer = StepParts()
    trainer = Trainer(
        max_steps=6,
        callbacks=[timer],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Slow()
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(24, 8), batch_size=4))
    seconds = timer.seconds()
    assert seconds["momentum"] == 0
    assert min(seconds[name] for name in ("forward", "backward", "optimizer")) > 0
    assert timer.saved == 2 * 4 * 8 * 4  # the input and the output, not the weight
    assert timer.checkpoint == 2 * 8 * 8 * 4  # weight and momentum
    # 2 for each multiply-add of the layer and of the gradient of its weight; the input needs none.
    assert timer.flops == 2 * (2 * 4 * 8 * 8)


@given(st.integers(1, 300), st.integers(0, 1000), st.integers(1, 1000))
def test_doubling_finds_the_largest_multiple(first: int, fitting: int, most: int) -> None:
    tried: list[int] = []

    def fits(videos: int) -> bool:
        tried.append(videos)
        return videos <= fitting

    found = try_batches(fits, first=first, most=most)
    assert max(tried) <= most
    assert found.videos is not None
    assert found.videos <= fitting
    assert len(tried) <= 12
    if found.videos and not found.limited:
        assert 2 * found.videos + 1 > fitting  # an odd number was halved
    assert (found.videos == 0) is (fitting == 0)
    assert not found.limited or 2 * found.videos > most


def test_estimates() -> None:
    assert estimate_batch(free=100, per_video=1.0, most=1000).videos == 64
    assert estimate_batch(free=100, per_video=1000.0, most=1000).videos == 0
    assert estimate_batch(free=100, per_video=1.0, most=50) == LargestBatch(
        videos=50, tried=False, limited=True
    )
    assert estimate_batch(free=None, per_video=1.0, most=50).videos is None
    free = free_memory()
    assert free is None or 2**20 < free < 2**50


def test_only_a_lack_of_memory_means_that_a_batch_does_not_fit(tmp_path: Path) -> None:
    """The trainer raises what a device that is full raises, as a cause of another error."""

    def trainer(error: Exception, **_options: Any) -> Any:
        class Failing:
            def fit(self, *_unused: Any, **_more: Any) -> None:
                raise RuntimeError("training failed") from error

        return Failing()

    sample = {"x": torch.zeros(2), "rejected": [], "valid": True}

    def build(error: Exception) -> Any:
        return lambda _: Parts(Slow(), None, partial(trainer, error))  # type: ignore[arg-type]

    assert not fits_device(build(torch.cuda.OutOfMemoryError("full")), [sample])(4)
    with pytest.raises(RuntimeError, match="training failed"):
        fits_device(build(ValueError("else")), [sample])(4)


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 4), st.integers(1, 9))
def test_steps_are_those_of_the_batches(
    videos: int, micro: int, accumulate: int, epochs: int
) -> None:
    from vclr_lightning.data.loading.epochs import epoch_order, rank_batches

    batch = micro * accumulate
    length = Length(epochs=epochs, batch=batch, accumulate=accumulate)
    order = epoch_order(videos, seed=0, epoch=0)
    batches = rank_batches(order, batch, accumulate=accumulate)
    assert length.steps_per_epoch(videos) * accumulate == len(batches)
    assert length.total(videos) == epochs * length.steps_per_epoch(videos)
    with pytest.raises(UserError, match=r"epochs=\.\.\. or steps=\.\.\."):
        Length(batch=batch)
    limited = Length(epochs=epochs, batch=batch, accumulate=accumulate, limit=2, steps=3)
    assert limited.steps_per_epoch(videos) <= 2
    assert limited.total(videos) <= 3
