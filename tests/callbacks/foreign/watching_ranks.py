"""Watch a training on 1 and 2 gloo processes; run as a script by its test."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from foreign_modules import CLASSES, make_trainer, sample
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vclr_lightning.callbacks import (
    CollapseMonitor,
    GradientConflict,
    OnlineAttentiveProbe,
    OnlineKNN,
    OnlineLinearProbe,
    TimeProbe,
)
from vclr_lightning.core.lightning import DDPStrategy, LightningModule, TorchElasticEnvironment

GLOBAL_BATCH, STEPS = 6, 5


class Plain(LightningModule):
    """Without BatchNorm, whose statistics would differ between the ranks; two losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Any]:
        features = self(batch["image"])
        losses = {
            "class": cross_entropy(self.head(features), batch["label"]),
            "size": features.square().mean(),
        }
        return {"loss": sum(losses.values()), "losses": losses}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Loader:
    """This rank's share of each global batch."""

    def __init__(self, rank: int, world: int, *, first: int = 0) -> None:
        self.rank, self.world, self.first = rank, world, first

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        share = GLOBAL_BATCH // self.world
        for step in range(STEPS):
            start = self.first + step * GLOBAL_BATCH + self.rank * share
            samples = [sample("classifier", i) for i in range(start, start + share)]
            yield {
                "image": torch.stack([one["image"] for one in samples]),
                "label": torch.tensor([one["label"] for one in samples]),
                "video_id": torch.arange(start, start + share),
            }


def watch(rank: int, world: int, port: int, path: Path) -> None:
    warnings.filterwarnings("error", message=".*sync_dist.*")
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )

    def held_out(trainer: Any) -> Loader:
        return Loader(rank, world, first=50)

    options: dict[str, Any] = {"held_out": held_out, "num_classes": CLASSES}
    probes = [
        OnlineLinearProbe(**options),
        OnlineAttentiveProbe(features="encoder.0", **options),
    ]
    trainer = make_trainer(
        CollapseMonitor(every_n_steps=2, samples=3 * GLOBAL_BATCH),
        GradientConflict(every_n_steps=STEPS),
        OnlineKNN(k=3, **options),
        TimeProbe(
            clips=lambda b: b["image"][:, :, None].expand(-1, -1, 3, -1, -1),
            encode=lambda x: x.mean(dim=2).flatten(1),
            **options,
        ),
        *probes,
        devices=world,
        strategy=DDPStrategy(process_group_backend="gloo"),
        plugins=[TorchElasticEnvironment()],
        use_distributed_sampler=False,
    )
    trainer.fit(Plain(), Loader(rank, world))
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = [
        parameter.detach().flatten().tolist()
        for one in probes
        for parameter in one.heads.parameters()
    ]
    path.with_name(f"{path.stem}-{rank}.json").write_text(json.dumps([values, weights]))
    dist.destroy_process_group()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fork = multiprocessing.get_context("fork")
    for world in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (world, port, folder / f"{world}.json")
        ranks = [fork.Process(target=watch, args=(rank, *arguments)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            sys.exit(f"{world} processes failed")
