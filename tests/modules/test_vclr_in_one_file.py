"""The method written out in plain PyTorch trains exactly as the package does."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from vclr_lightning.core.types import Batch
from vclr_lightning.modules import PretrainModule

FILE = Path(__file__).parents[2] / "examples" / "vclr_in_one_file.py"


@pytest.fixture
def example() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


class Losses(Callback):
    """The four losses of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.steps.append({name: trainer.callback_metrics[f"train/{name}/loss"] for name in LOSSES})


LOSSES = ("inter", "intra", "video", "order")


@pytest.mark.parametrize("segments", [3, 5])
def test_losses_weights_and_queues_are_those_of_the_package(
    example: dict[str, Any],
    make_module: Callable[..., PretrainModule],
    make_network: Callable[..., Any],
    make_batch: Callable[..., Batch],
    fit: Callable[..., Trainer],
    segments: int,
) -> None:
    module = make_module(segments=segments, norm=True, batchnorm="none")
    model = example["VCLR"](make_network(norm=True), 6, S=segments, D=4, K=20)
    model.query["backbone"].load_state_dict(module.query_encoder.state_dict())
    for name in LOSSES:
        model.query[name].load_state_dict(module.objectives[name].query_head.state_dict())
    model.key.load_state_dict(model.query.state_dict())
    model.classifier.load_state_dict(module.objectives["order"].classifier.state_dict())
    for name, queue in (("inter", model.inter_queue), ("video", model.video_queue)):
        queue.keys.copy_(module.objectives[name].queue.rows)

    # Videos come again, so that queues hold their earlier keys; both queues wrap around.
    batches = [make_batch(range(4), segments=segments, epoch=epoch) for epoch in range(6)]
    losses = Losses()
    fit(module, batches, losses)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    for batch, expected in zip(batches, losses.steps, strict=True):
        ours, keys = model(batch)
        assert set(ours) == set(LOSSES)
        for name in LOSSES:
            torch.testing.assert_close(ours[name].detach(), expected[name], atol=2e-5, rtol=2e-5)
        optimizer.zero_grad()
        sum(ours.values()).backward()
        optimizer.step()
        model.after_step(keys, batch["video_id"], momentum=0.9)

    close = {"atol": 1e-4, "rtol": 1e-4}
    for mine, theirs in (
        (model.query["backbone"], module.query_encoder),
        (model.key["backbone"], module.key_encoder),
    ):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, **close)
    for name, queue in (("inter", model.inter_queue), ("video", model.video_queue)):
        torch.testing.assert_close(queue.keys, module.objectives[name].queue.rows, **close)
        assert queue.ids.equal(module.objectives[name].queue.ids)
        assert queue.pointer == int(module.objectives[name].queue.pointer)


def test_it_trains_on_a_folder_of_videos(
    example: dict[str, Any],
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    example["main"](str(video_folder), epochs=1, batch_size=4)
    assert "epoch 1: inter" in capsys.readouterr().out
    assert (tmp_path / "vclr_resnet18.pth").exists()
