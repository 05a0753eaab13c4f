"""MoCo v2, SeCo and VINCE in one and two processes; run as a script by test_frame_methods.py.

The trajectories repeat those that the authors' code was recorded in, with its pictures and weights.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed_run import launch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader
from torchvision.models.resnet import BasicBlock, ResNet

from conftest import SIZE, Network
from vclr_lightning.core.types import Batch
from vclr_lightning.modules import MomentumEncoder, PretrainModule, key_batchnorm
from vclr_lightning.objectives import (
    InterFrame,
    IntraFrame,
    MoCo,
    PrecedesOrFollows,
    Vince,
)

REFERENCE = Path(__file__).parents[1] / "reference"


def named(name: str, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape))


def seed(module: nn.Module, prefix: str) -> None:
    """Set the weights by the naming rule of the figures."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = named(prefix + name, parameter.shape)
            if parameter.dim() > 1:
                value *= math.sqrt(2 / math.prod(parameter.shape[1:]))
            else:
                value = 1 + 0.1 * value if name.endswith("weight") else 0.01 * value
            parameter.copy_(value)


class Lookup(nn.Module):
    """A trunk that is given the number of a picture in each pixel, and sees the picture."""

    num_features, clip_dims = 512, 2
    pixel_mean, pixel_std = (0.0,) * 3, (1 / 255,) * 3

    def __init__(self, norm: str, pictures: Tensor) -> None:
        super().__init__()
        layer = partial(nn.GroupNorm, 8) if norm == "gn" else nn.BatchNorm2d
        self.trunk = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=layer)
        self.trunk.fc = nn.Identity()
        self.pictures = pictures

    def forward_map(self, x: Tensor) -> Tensor:
        x = self.pictures[x[:, 0, 0, 0].round().long()]
        layers = list(self.trunk.children())[:-2]  # without pooling and fc
        y: Tensor = nn.Sequential(*layers)(x)
        return y

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_map(x))


def batch_of(views: Mapping[str, Tensor], ids: Tensor, **targets: Tensor) -> Batch:
    return Batch(
        views=dict(views),
        rows={},
        targets=targets,
        frame_indices={},
        video_id=ids,
        group_id=ids,
        label=torch.full_like(ids, -1),
        index=ids,
        rejected=[],
    )  # type: ignore[typeddict-item]


class Recorder(Callback):
    """Losses and queue of each step, and how far the key side has moved."""

    def __init__(self, module: PretrainModule) -> None:
        self.start = {n: p.detach().clone() for n, p in module.named_parameters()}
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *_unused: Any
    ) -> None:
        now = dict(pl_module.named_parameters())
        queues = {n: b.clone() for n, b in pl_module.named_buffers() if n.endswith("queue.rows")}
        pointers = {n: int(b) for n, b in pl_module.named_buffers() if n.endswith("queue.pointer")}
        self.steps.append(
            {
                "losses": {name: float(loss) for name, loss in outputs["losses"].items()},
                "queue": next(iter(queues.values())),
                "pointer": next(iter(pointers.values())),
                "moved": {n: float((now[n].detach() - p).norm()) for n, p in self.start.items()},
            }
        )


def fit(module: PretrainModule, batches: Iterable[Batch], world: int) -> list[dict[str, Any]]:
    recorder = Recorder(module)
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy(broadcast_buffers=False, process_group_backend="gloo"),
        plugins=[TorchElasticEnvironment()],
        precision="64-true",
        max_epochs=1,
        use_distributed_sampler=False,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(list(batches), batch_size=None))  # type: ignore[arg-type]
    return recorder.steps


def numbers(start: int, count: int) -> Tensor:
    """Clips of one pixel that hold these numbers."""
    x = torch.arange(start, start + count, dtype=torch.uint8)
    return x.view(-1, 1, 1, 1, 1, 1).expand(-1, 1, 3, 1, 1, 1)


def built(
    pictures: Tensor,
    norm: str,
    figures: Mapping[str, Any],
    objectives: Mapping[str, Any],
    **key: Any,
) -> PretrainModule:
    rule = {"lr": figures["lr"], "momentum": figures["momentum"]}
    return PretrainModule(
        backbone=Lookup(norm, pictures),
        objectives=objectives,
        encoders={"key": MomentumEncoder(momentum=figures["m"], **key)},
        optimizer=partial(SGD, **rule, weight_decay=figures["weight_decay"]),
    ).double()


def moco(rank: int, world: int, *, norm: str) -> dict[str, Any]:
    figures = json.loads((REFERENCE / "g13_moco.json").read_text())
    ranks = f"ranks{world}." if world > 1 else ""
    size, steps = figures["B"], figures["ranks2" if ranks else norm]["steps"]
    steps = steps if isinstance(steps, int) else len(steps)
    shape = (world * size, 3, 48, 48)
    pictures = [
        named(f"g13.{ranks}batch{i}.{side}", shape)
        for i in range(steps)
        for side in ("im_q", "im_k")
    ]
    key = {"batchnorm": "shuffle" if ranks else "none"}
    objective = partial(MoCo, embedding_dim=figures["D"], queue_size=figures["K"])
    module = built(torch.cat(pictures), norm, figures, {"moco": objective}, **key)
    loss: Any = module.objectives["moco"]
    seed(module.query_encoder.trunk, "encoder_q.")
    seed(loss.query_head, "encoder_q.fc.")
    module.reset_key_encoder()
    rows = named("g13.queue", (figures["K"], figures["D"]))
    loss.queue.rows.copy_(rows / rows.norm(dim=1, keepdim=True))
    loss.queue.pointer.fill_(0 if ranks else figures["pointer_start"])
    if ranks:
        key_batchnorm.shuffle_routes = recorded_routes(figures["ranks2"]["permutations"])

    def batches() -> Iterator[Batch]:
        for i in range(steps):
            first = 2 * world * size * i + size * rank
            views = {"queries": numbers(first, size), "keys": numbers(first + world * size, size)}
            yield batch_of(views, torch.arange(size) + size * (rank + world * i))

    return {"steps": fit(module, batches(), world)}


def recorded_routes(permutations: Sequence[Sequence[int]]) -> Callable[..., Tensor]:
    """Return the recorded shuffles instead of drawn ones, one after the other."""
    left = list(permutations)

    def routes(videos: int, world_size: int, rng: torch.Generator) -> Tensor:
        places = torch.tensor(left.pop(0)).argsort()  # of each video in the shuffled batch
        return (places // videos).view(world_size, videos)

    return routes


SECO_PICTURES = {"x1": "xq", "x1_again": "x1", "x2": "x2", "x3": "x3"}


def seco_objectives(dim: int, queue_size: int) -> dict[str, Any]:
    keys = ("x1_again", "x2", "x3")
    inter = {"query": "x1", "keys": keys, "own_mask": "none", "queue_size": queue_size}
    intra = {"query": "x1", "positive": keys[0], "negatives": keys[1:], "form": "pairwise"}
    return {
        "inter": partial(InterFrame, embedding_dim=dim, **inter),
        "intra": partial(IntraFrame, embedding_dim=dim, **intra),
        "order": partial(PrecedesOrFollows, embedding_dim=dim),
    }


def seco(rank: int, world: int, *, norm: str) -> dict[str, Any]:
    figures = json.loads((REFERENCE / "seco.json").read_text())
    size, steps = figures["B"], len(figures["labels"])
    pictures = [
        named(f"seco.batch{i}.{name}", (size, 3, 48, 48))
        for i in range(steps)
        for name in SECO_PICTURES.values()
    ]
    objectives = seco_objectives(figures["D"], figures["K"])
    key = {"batchnorm": "none", "batches": "request"}
    module = built(torch.cat(pictures), norm, figures, objectives, **key)
    seed(module.query_encoder.trunk, "seco.")
    for name, objective in module.objectives.items():
        seed(objective.query_head, f"seco.fc_{name}.")
    seed(module.objectives["order"].classifier, "seco.fc_order_classifier.")
    module.reset_key_encoder()
    rows = named("seco.memory", (figures["K"], figures["D"]))
    queue: Any = module.objectives["inter"].queue
    queue.rows.copy_(rows / rows.norm(dim=1, keepdim=True))
    queue.pointer.fill_(figures["pointer_start"])

    def batches() -> Iterator[Batch]:
        for i, labels in enumerate(figures["labels"]):
            first = len(SECO_PICTURES) * size * i
            views = {v: numbers(first + size * j, size) for j, v in enumerate(SECO_PICTURES)}
            yield batch_of(views, torch.arange(size) + size * i, follows=torch.tensor(labels))

    steps = fit(module, batches(), world)
    buffers = {
        f"{side}.{name}": float(value.norm())
        for side in ("query", "key")
        for name, value in getattr(module, f"{side}_encoder").named_buffers()
        if "running" in name and name.startswith("trunk.bn1")
    }
    return {"steps": steps, "running": buffers}


GLOBAL_BATCH, STEPS = 8, 4
CLIPS = {"x1": 1, "x1_again": 1, "x2": 1, "x3": 1, "queries": 4, "keys": 4, "frame": 1, "again": 1}


def all_methods(rank: int, world: int) -> dict[str, Any]:
    """All objectives side by side, on pictures that depend on their video alone."""
    torch.manual_seed(0)
    objectives = {
        "moco": partial(MoCo, query="frame", keys=("again",), embedding_dim=4, queue_size=20),
        **seco_objectives(4, 20),
        "vince": partial(Vince, embedding_dim=4, queue_size=50, self_temperature=0.3),
    }
    module = PretrainModule(
        backbone=Network(),
        objectives=objectives,
        encoders={"key": MomentumEncoder(momentum=0.9)},
        optimizer=partial(SGD, lr=0.1, momentum=0.9),
    )
    share = GLOBAL_BATCH // world

    def batches() -> Iterator[Batch]:
        for step in range(STEPS):
            first = GLOBAL_BATCH * step + share * rank
            # One video is twice in each batch, so that ranks have different numbers of pairs.
            ids = [max(video, GLOBAL_BATCH * step + 1) for video in range(first, first + share)]
            samples = [sample(video, number) for number, video in enumerate(ids, start=first)]
            views = {name: torch.stack([some[name] for some in samples]) for name in CLIPS}
            yield batch_of(views, torch.tensor(ids), follows=torch.tensor(ids) % 2)

    return {"steps": fit(module, batches(), world), "state": module.state_dict()}


def sample(video: int, number: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1000 * video + number)
    shape = {name: (clips, 3, 1, SIZE, SIZE) for name, clips in CLIPS.items()}
    return {
        name: torch.randint(0, 256, size, generator=rng, dtype=torch.uint8)
        for name, size in shape.items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for kind in ("gn", "bn"):
        launch(f"moco_{kind}", 1, partial(moco, norm=kind), folder)
        launch(f"seco_{kind}", 1, partial(seco, norm=kind), folder)
    launch("moco_ranks", 2, partial(moco, norm="bn"), folder)
    for size in (1, 2):
        launch(f"world{size}", size, all_methods, folder)
