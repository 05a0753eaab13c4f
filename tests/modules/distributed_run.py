"""Train in 1, 2 and 4 gloo processes; run as a script by test_distributed.py.

The processes are forked from this one, so that torch and Lightning are imported once.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader

from conftest import Network, build_batch, build_module
from vclr_lightning.core.distributed import gather_with_gradient
from vclr_lightning.core.distributed import rank as own_rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import torch_generator
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.modules.encoding import encoded
from vclr_lightning.modules.input_pixels import Pixels
from vclr_lightning.modules.key_batchnorm import shuffle_videos
from vclr_lightning.modules.momentum_encoder import MomentumEncoder
from vclr_lightning.objectives import CVRL, DPC, VTHCL, Classify, ClipNCE, MemDPC
from vclr_lightning.objectives.base import Objective

GLOBAL_BATCH, STEPS = 8, 5


class Losses(Callback):
    """Remembers what is logged: means over two steps and the ranks."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.values.append({name: float(v) for name, v in trainer.callback_metrics.items()})


class TwoViews(Objective):
    """SimCLR on two tuples, with gradient on both sides and negatives from the whole batch."""

    def __init__(self, *, num_features: int) -> None:
        super().__init__()
        self.head = nn.Linear(num_features, 4)

    def requests(self) -> Mapping[str, Request]:
        return {name: Request("query", (name,)) for name in ("anchor", "positive")}

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        views = [normalize(self.head(features[name].mean(1)), dim=1) for name in self.requests()]
        target = torch.arange(len(views[0])) + own_rank() * len(views[0])
        losses = [
            cross_entropy(one @ gather_with_gradient(other).T / 0.1, target)
            for one, other in (views, reversed(views))
        ]
        return ObjectiveOutput(torch.stack(losses).sum())


class Spare(TwoViews):
    """Has a head that no loss depends on."""

    def __init__(self, *, num_features: int) -> None:
        super().__init__(num_features=num_features)
        self.spare = nn.Linear(2, 2)


def refused(rank: int, world: int, objective: type[Objective]) -> dict[str, Any]:
    try:
        train(rank, world, objectives={"mine": objective})
    except UserError as error:
        return {"said": str(error)}
    return {"said": None}


def documented() -> type[Objective]:
    """Return the objective with negatives from the batch that the documentation shows."""
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    found = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names["InBatchVideo"]


def my_batches(rank: int, world: int, accumulate: int) -> list[Any]:
    """Cut each global batch into micro-batches, and each of those into blocks of the ranks."""
    share = GLOBAL_BATCH // (world * accumulate)
    starts = range(rank * share, GLOBAL_BATCH * STEPS, world * share)
    return [build_batch(range(start, start + share)) for start in starts]


def train(rank: int, world: int, *, accumulate: int = 1, **options: Any) -> dict[str, Any]:
    module = build_module(queue_size=50, **options)
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=world,
        strategy=DDPStrategy(broadcast_buffers=False, process_group_backend="gloo"),
        plugins=[TorchElasticEnvironment()],
        precision="64-true",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        use_distributed_sampler=False,
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
    )
    batches = my_batches(rank, world, accumulate)
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return {"losses": losses.values[accumulate - 1 :: accumulate], "state": module.state_dict()}


def shuffle(rank: int, world: int) -> dict[str, Any]:
    """Encode each rank's videos by a network with BatchNorm, shuffled over the ranks."""
    dist.init_process_group("gloo")
    videos = build_batch(range(4 * rank, 4 * rank + 4))["views"]["anchor"]
    torch.manual_seed(0)
    network = Network(norm=True).double()
    groups: list[Tensor] = []

    def encode(clips: Tensor) -> dict[str, Tensor]:
        groups.append(clips.clone())
        return encoded(
            network, clips, pixels=Pixels(2, (0.5,) * 3, (0.25,) * 3), kinds=("features", "maps")
        )

    with torch.no_grad():
        for step in range(2):
            found = shuffle_videos(videos, encode, rng=torch_generator(0, "shuffle", step))
    return {"videos": videos, "groups": groups, **found}


def process(
    work: Callable[[int, int], dict[str, Any]], rank: int, world: int, port: int, path: Path
) -> None:
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
    torch.save(work(rank, world), path)
    if dist.is_initialized():
        dist.destroy_process_group()


def launch(name: str, world: int, work: Callable[[int, int], dict[str, Any]], to: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=process, args=(work, rank, world, port, to / f"{name}-{rank}.pt"))
        for rank in range(world)
    ]
    for started in processes:
        started.start()
    for ended in processes:
        ended.join()
    if any(ended.exitcode for ended in processes):
        sys.exit(f"{name} failed")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for size in (1, 2, 4):
        launch(f"world{size}", size, train, folder)
    dense = {"of": "anchor", "predict": 1, "dropout": 0.0, "negatives": "global"}
    in_batch = {
        "two_views": TwoViews,
        "documented": documented(),
        "dpc": partial(DPC, **dense),
        "memdpc": partial(MemDPC, **dense),
        "classify": partial(
            Classify,
            of="anchor",
            target="shuffled",
            classes=4,
            clips=3,
            join="pairs",
            hidden=5,
        ),
    }
    one: dict[str, Any] = {"embedding_dim": 4}
    in_batch |= {
        "clip_nce": partial(ClipNCE, query="anchor[x1]", keys=["second"], queue_size=50, **one),
        "cvrl": partial(CVRL, first="anchor[x1]", second="second", **one),
        "pace": partial(Classify, of="anchor[x1]", target="shuffled", classes=4),
        "vthcl": partial(
            VTHCL,
            slow="anchor[x1]",
            fast="fast:second",
            stages={"conv": [6, 6]},
            negatives=5,
            videos=GLOBAL_BATCH * STEPS,
            **one,
        ),
    }
    encoders = {"key": MomentumEncoder(momentum=0.9), "fast": Network()}
    for size in (1, 2):
        work = partial(train, objectives=in_batch, encoders=encoders)
        launch(f"in_batch{size}", size, work, folder)
    launch("unused", 2, partial(refused, objective=Spare), folder)
    launch("accumulated", 2, partial(train, accumulate=2), folder)
    launch("batchnorm", 2, partial(train, norm=True), folder)
    launch("shuffle", 2, shuffle, folder)
