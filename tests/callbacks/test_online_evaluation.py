"""Evaluation during training: what it measures, and that it disturbs nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vclr_lightning.callbacks.online_evaluation import OnlineEvaluation
from vclr_lightning.core.errors import UserError
from vclr_lightning.loggers.csv import CSVLogger
from vclr_lightning.results.curves import read_metrics

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*eval mode at the start of training.*",
)

VIDEOS, CLASSES, SEGMENTS, SIZE = 12, 3, 2, 8


def picture(video: int, draw: int) -> Tensor:
    """Return a clip of a video: its class is its colour, its own noise is shared by its draws."""
    own = np.random.default_rng([7, video]).integers(0, 60, (3, 1, SIZE, SIZE))
    drawn = np.random.default_rng([8, video, draw]).integers(0, 30, (3, 1, SIZE, SIZE))
    clip = own + drawn
    clip[video % CLASSES] += 120
    return torch.from_numpy(clip).byte()


class Table:
    def __init__(self, labelled: bool, videos: int) -> None:
        self.labelled, self.videos = labelled, videos

    def __len__(self) -> int:
        return self.videos

    def label(self, i: int) -> int:
        return i % CLASSES if self.labelled else -1


class Data(LightningDataModule):
    """Somebody else's data module."""

    def __init__(
        self,
        *,
        labelled: bool = True,
        videos: int = VIDEOS,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.table = Table(labelled, videos)
        self.rows = range(videos * rank // world_size, videos * (rank + 1) // world_size)

    def manifest(self, split: str) -> Table:
        return self.table

    def train_dataloader(self) -> Any:
        return DataLoader([torch.randn(2, 3) for _ in range(2)], batch_size=None)

    def facts(self, rows: list[int]) -> dict[str, Any]:
        index = torch.tensor(rows, dtype=torch.int64)
        labels = torch.tensor([self.table.label(i) for i in rows], dtype=torch.int64)
        return {
            "label": labels,
            "video_id": index,
            "group_id": index // 2,
            "index": index,
            "rejected": [],
        }

    def batches(self, rows: Sequence[int] | None = None) -> Iterator[list[int]]:
        rows = list(self.rows) if rows is None else list(rows)
        for start in range(0, len(rows), 5):
            yield rows[start : start + 5]

    def pair_loader(
        self,
        split: str,
        views: tuple[str, str],
        *,
        rows: Sequence[int] | None = None,
        draw: int = 0,
    ) -> Any:
        assert split == "val"
        first = 20 * draw
        return [
            {
                **self.facts(rows),
                "views": {
                    view: torch.stack(
                        [
                            torch.stack(
                                [picture(i, first + 10 * side + s) for s in range(SEGMENTS)]
                            )
                            for i in rows
                        ]
                    )
                    for side, view in enumerate(views)
                },
            }
            for rows in self.batches(rows)
        ]

    def frames_loader(self, split: str, rows: Sequence[int] | None = None) -> Any:
        draw = {"train": 100, "val": 200}[split]
        return [
            {
                **self.facts(some),
                "frames": torch.stack([picture(i, draw)[None] for i in some]),
                "mask": torch.ones(len(some), 1, dtype=torch.bool),
            }
            for some in self.batches(rows)
        ]


class Foreign(LightningModule):
    """Somebody else's module, with dropout, BatchNorm and a layer that is frozen on purpose."""

    def __init__(self, *, encodes: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.frozen = nn.BatchNorm1d(4).eval()
        self.seen: list[Tensor] = []
        if encodes:
            self.encode = self.pixels

    def pixels(self, frames: Tensor) -> Tensor:
        assert frames.dtype == torch.uint8
        assert not self.training
        torch.rand(3)  # an encoder that draws disturbs nothing either
        return nn.functional.adaptive_avg_pool2d(frames.squeeze(2).float(), 4).flatten(1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(torch.rand(1))
        return self.frozen(self.net(batch)).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: LightningModule, data: Any, *callbacks: Any, epochs: int = 1) -> Trainer:
    trainer = Trainer(
        callbacks=list(callbacks),
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("draws", [1, 3])
def test_values_are_those_of_a_direct_computation(draws: int) -> None:
    online = OnlineEvaluation(draws=draws, show=False)
    metrics = fit(Foreign(), Data(), online).callback_metrics
    module = Foreign().eval()

    def video(i: int, draws: list[int]) -> Tensor:
        return module.pixels(torch.stack([picture(i, d) for d in draws])).mean(0)

    def nearest(queries: list[Tensor], gallery: list[Tensor]) -> list[int]:
        q, g = (torch.nn.functional.normalize(torch.stack(x), dim=1) for x in (queries, gallery))
        return (q @ g.T).argmax(1).tolist()

    hits = []
    for draw in range(0, 20 * draws, 20):
        first, second = (
            [video(i, [draw + 10 * k, draw + 10 * k + 1]) for i in range(VIDEOS)] for k in (0, 1)
        )
        for side in (nearest(first, second), nearest(second, first)):
            hits += [j == i for i, j in enumerate(side)]
    assert metrics["val/instance_r1"] == pytest.approx(np.mean(hits))
    assert metrics["val/instance_chance"] == pytest.approx(1 / VIDEOS)
    train, val = ([video(i, [d]) for i in range(VIDEOS)] for d in (100, 200))
    right = [i % CLASSES == j % CLASSES for i, j in enumerate(nearest(val, train))]
    assert metrics["val/knn_r1"] == pytest.approx(np.mean(right))
    assert metrics["val/knn_chance"] == pytest.approx(1 / CLASSES)


def test_training_goes_on_as_without_it() -> None:
    modules = [Foreign(), Foreign()]
    for module, callbacks in zip(modules, [[], [OnlineEvaluation(show=False)]], strict=True):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        fit(module, Data(), *callbacks, epochs=3)
        module.seen.append(torch.tensor([random.random(), np.random.rand()]))
        assert module.net.training
        assert not module.frozen.training
    for one, other in zip(modules[0].seen, modules[1].seen, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("at_start", "expected"), [(True, [0, 2, 4, 5]), (False, [2, 4, 5])])
def test_at_the_start_every_few_epochs_and_after_the_last(
    at_start: bool, expected: list[int]
) -> None:
    epochs: list[int] = []

    class Counting(OnlineEvaluation):
        def evaluate(self, pl_module: LightningModule, *, show: bool = False) -> dict[str, float]:
            epochs.append(pl_module.global_step // 2)  # batches an epoch
            return {"val/instance_r1": 0.0}

    fit(Foreign(), Data(), Counting(every_n_epochs=2, at_start=at_start), epochs=5)
    assert epochs == expected


class Learning(Foreign):
    """Its features are of what it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = lambda frames: self.net(frames.float().mean((-3, -2, -1)) / 255)


def test_before_the_first_step_the_untrained_network_is_measured(tmp_path: Path) -> None:
    """Logged at step 0, kept in the checkpoint, and not measured again by a run that continues."""

    def trainer(epochs: int) -> tuple[Trainer, OnlineEvaluation]:
        online = OnlineEvaluation(show=False)
        one = Trainer(
            callbacks=[online],
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger(directory=tmp_path),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        return one, online

    first, online = trainer(1)
    first.fit(Learning(), datamodule=Data())
    untrained = Learning().eval()
    one, other = (
        torch.nn.functional.normalize(
            torch.stack(
                [
                    torch.stack([untrained.encode(picture(i, d)[None])[0] for d in draws]).mean(0)
                    for i in range(VIDEOS)
                ]
            ),
            dim=1,
        )
        for draws in ([0, 1], [10, 11])
    )
    likeness = one @ other.T
    hits = [likeness.argmax(k) == torch.arange(VIDEOS) for k in (0, 1)]
    measured = online.start["start/val/instance_r1"]
    assert measured == pytest.approx(torch.cat(hits).float().mean().item())
    assert online.start.keys() == {"start/val/instance_r1", "start/val/knn_r1"}
    curves = read_metrics(tmp_path / "metrics.csv")
    assert [step for step, _ in curves["val/instance_r1"]] == [0, 1]
    assert next(iter(curves["val/instance_r1"])) == (0, measured)
    assert curves["start/val/instance_r1"].last == (0, measured)

    first.save_checkpoint(tmp_path / "last.ckpt")
    second, continued = trainer(2)
    second.fit(Learning(), datamodule=Data(), ckpt_path=str(tmp_path / "last.ckpt"))
    assert continued.start == online.start
    curves = read_metrics(tmp_path / "metrics.csv")
    assert [step for step, _ in curves["val/instance_r1"]] == [0, 1, 3]


def test_neighbours_in_the_held_out_videos_are_of_other_groups() -> None:
    online = OnlineEvaluation(gallery="val", instance=False, show=False)
    metrics = fit(Foreign(), Data(), online).callback_metrics
    assert "val/instance_r1" not in metrics
    module = Foreign().eval()
    features = nn.functional.normalize(
        torch.stack([module.pixels(picture(i, 200)[None])[0] for i in range(VIDEOS)]), dim=1
    )
    similarity = features @ features.T
    hits, shares = [], []
    for i in range(VIDEOS):
        others = [j for j in range(VIDEOS) if j // 2 != i // 2]
        best = max(others, key=lambda j: float(similarity[i, j]))
        hits.append(best % CLASSES == i % CLASSES)
        shares.append(np.mean([j % CLASSES == i % CLASSES for j in others]))
    assert metrics["val/knn_r1"] == pytest.approx(np.mean(hits))
    assert metrics["val/knn_chance"] == pytest.approx(np.mean(shares))


class Asked(Data):
    """Remembers which rows it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, Any] = {}

    def pair_loader(self, split: str, views: Any, *, rows: Any = None) -> Any:
        self.asked[f"pairs of {split}"] = rows
        return super().pair_loader(split, views, rows=rows)

    def frames_loader(self, split: str, rows: Any = None) -> Any:
        self.asked[split] = rows
        return super().frames_loader(split, rows=rows)


def test_a_part_of_the_videos(caplog: pytest.LogCaptureFixture) -> None:
    """Drawn by a seed, said once, and measured as if there were no others."""
    seen: list[dict[str, list[int]]] = []
    for seed in (0, 0, 1):
        data = Asked()
        asked = data.asked
        online = OnlineEvaluation(gallery_videos=4, val_videos=5, seed=seed, show=False)
        with caplog.at_level("INFO", logger="vclr_lightning"):
            metrics = fit(Foreign(), data, online).callback_metrics
        said = [r.message for r in caplog.records if "drawn with seed" in r.message]
        caplog.clear()
        assert said == [
            f"evaluation during training: 5 of 12 videos of val, drawn with seed {seed}",
            f"evaluation during training: 4 of 12 videos of train, drawn with seed {seed}",
        ]
        assert asked["pairs of val"] == asked["val"]
        assert [len(set(asked[split])) for split in ("train", "val")] == [4, 5]
        same = [[i % CLASSES == j % CLASSES for j in asked["train"]] for i in asked["val"]]
        assert metrics["val/knn_chance"] == pytest.approx(np.mean(same))
        assert metrics["val/instance_chance"] == pytest.approx(1 / 5)
        seen.append(asked)
    assert seen[0] == seen[1] != seen[2]


def test_without_labels_only_instances_are_told_apart() -> None:
    metrics = fit(Foreign(), Data(labelled=False), OnlineEvaluation(show=False)).callback_metrics
    assert {name for name in metrics if name.startswith("val/")} == {
        "val/instance_r1",
        "val/instance_chance",
    }


def test_an_encoder_of_ones_own() -> None:
    module = Foreign(encodes=False)
    online = OnlineEvaluation(encode=lambda x: module.pixels(255 - x), show=False)
    assert "val/knn_r1" in fit(module, Data(), online).callback_metrics


def test_ranks_share_the_videos_and_agree(tmp_path: Path) -> None:
    script = Path(__file__).with_name("online_ranks.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    values = {file.stem: json.loads(file.read_text()) for file in tmp_path.iterdir()}
    assert values["3-12"] == values["1-12"]
    assert values["3-2"] == values["1-2"]
    assert values["1-2"]["val/instance_chance"] == 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"knn": "maybe"}, "knn=maybe"),
        ({"gallery": "test"}, "gallery=test"),
        ({"chunk": 0}, "chunk=0"),
        ({"gallery_videos": 0}, "gallery_videos=0"),
        ({"val_videos": 0}, "val_videos=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        OnlineEvaluation(**options)


def test_what_is_missing_is_said_before_training() -> None:
    class Bare(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader([torch.randn(2, 3)], batch_size=None)

    module = Foreign()
    with pytest.raises(UserError, match=r"lacks something: Bare has no pair_loader.*data\.holdout"):
        fit(module, Bare(), OnlineEvaluation())
    with pytest.raises(UserError, match="Foreign has no method encode"):
        fit(Foreign(encodes=False), Data(), OnlineEvaluation())
    with pytest.raises(UserError, match="none of the 12 videos of train has a label"):
        fit(module, Data(labelled=False), OnlineEvaluation(knn=True, instance=False, show=False))
    assert not module.seen
