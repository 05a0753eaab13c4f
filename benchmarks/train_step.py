"""A training step against the same step in the released code's way, one core.

    python -m benchmarks.train_step

Both train a ResNet-18 with all four losses on the same batch: forward, backward, SGD, momentum
encoder and queues. The baseline encodes the anchor frame again in addition to its tuple, clones
each queue before the product, materialises all logits, and updates the momentum encoder parameter
by parameter. First both are checked to compute the same loss; finally the largest allocation of a
step is recorded.
"""

from __future__ import annotations

import argparse
import copy
import sys
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.timing import compare, report
from vclr_lightning.core.types import Batch
from vclr_lightning.functional.pixels import normalize as normalize_pixels
from vclr_lightning.models import TinyBackbone, TorchvisionResNet
from vclr_lightning.modules import MomentumEncoder, PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel

OURS, RELEASED = "vclr_lightning", "as released"
SEGMENTS, DIM, TEMPERATURE, MOMENTUM = 3, 128, 0.1, 0.999


def make_batch(videos: int, size: int, seed: int) -> Batch:
    """Random frames; x1 is the first frame of every tuple."""
    rng = torch.Generator().manual_seed(seed)

    def pictures(n: int) -> Tensor:
        return torch.randint(
            0, 256, (videos, n, 3, 1, size, size), dtype=torch.uint8, generator=rng
        )

    order = torch.arange(SEGMENTS).repeat(videos, 1)
    ids = torch.arange(videos) + seed * videos
    return Batch(
        views={"anchor": pictures(SEGMENTS), "positive": pictures(SEGMENTS), "second": pictures(1)},
        rows={"x1": torch.zeros_like(order[:, :1]), "x2": order[:, 1:2], "x3": order[:, 2:3]},
        targets={
            "anchor_order": order,
            "positive_order": order,
            "shuffled": torch.zeros_like(ids),
        },
        frame_indices={},
        video_id=ids,
        group_id=ids,
        label=torch.full_like(ids, -1),
        index=ids,
        rejected=[],
    )


def make_module(backbone: nn.Module, queue_size: int, **options: Any) -> PretrainModule:
    """All four losses, as the paper has them."""
    return PretrainModule(
        backbone=backbone,
        objectives={
            "inter": partial(InterFrame, queue_size=queue_size),
            "intra": IntraFrame,
            "video": partial(VideoLevel, queue_size=queue_size),
            "order": partial(TemporalOrder, num_segments=SEGMENTS),
        },
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=1e-4),
        encoders={"key": MomentumEncoder(momentum=MOMENTUM)},
        **options,
    )


class OurStep:
    """A bare loop around the module."""

    def __init__(self, module: PretrainModule) -> None:
        self.module = module
        self.optimizer = module.configure_optimizers()

    def __call__(self, batch: Batch, index: int) -> Tensor:
        loss: Tensor = self.module.training_step(batch, index)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


class ReleasedStep:
    """The same networks and losses, computed in the released code's way."""

    def __init__(self, module: PretrainModule) -> None:
        module = copy.deepcopy(module)
        self.f_q: Any = module.query_encoder
        self.f_k: Any = module.key_encoder
        self.losses: Any = module.objectives
        self.pairs = [
            (query, key)
            for one, other in [
                (module.query_encoder, module.key_encoder),
                *(pair for loss in self.losses.values() for pair in loss.momentum_pairs()),
            ]
            for query, key in zip(one.parameters(), other.parameters(), strict=True)
        ]
        self.banks = {name: self.losses[name].queue.rows for name in ("inter", "video")}
        self.pointers = dict.fromkeys(self.banks, 0)
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=1e-4)

    def __call__(self, batch: Batch, index: int) -> Tensor:
        views = {name: normalize_pixels(view).squeeze(3) for name, view in batch["views"].items()}
        anchor, positive, second = (views[name] for name in ("anchor", "positive", "second"))
        frame = self.f_q(anchor[:, 0])  # (B, F): alone, and again with its tuple
        tuple_q = self.f_q(anchor.flatten(0, 1)).view(len(anchor), SEGMENTS, -1)
        with torch.no_grad():
            frames_k = [self.f_k(x) for x in (second[:, 0], anchor[:, 1], anchor[:, 2])]
            tuple_k = self.f_k(positive.flatten(0, 1)).view(len(anchor), SEGMENTS, -1)

        total = self._inter(frame, frames_k) + self._intra(frame, frames_k)
        total = total + self._video(tuple_q, tuple_k) + self._order(tuple_q, tuple_k, batch)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            for query, key in self.pairs:
                key.data = key.data * MOMENTUM + query.data * (1 - MOMENTUM)
        return total.detach()

    def _against_bank(self, name: str, query: Tensor, keys: list[Tensor]) -> Tensor:
        bank = self.banks[name]
        negatives = query @ bank.clone().detach().T
        same = torch.cat([(query * key).sum(1, keepdim=True) for key in keys])
        logits = torch.cat([same, negatives.repeat(len(keys), 1)], dim=1) / TEMPERATURE
        rows = torch.cat(keys)
        where = (self.pointers[name] + torch.arange(len(rows), device=rows.device)) % len(bank)
        bank.index_copy_(0, where, rows)
        self.pointers[name] = (self.pointers[name] + len(rows)) % len(bank)
        return cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))

    def _inter(self, frame: Tensor, frames_k: list[Tensor]) -> Tensor:
        heads = self.losses["inter"]
        with torch.no_grad():
            keys = [normalize(heads.key_head(x), dim=1) for x in frames_k]
        return self._against_bank("inter", normalize(heads.query_head(frame), dim=1), keys)

    def _intra(self, frame: Tensor, frames_k: list[Tensor]) -> Tensor:
        heads = self.losses["intra"]
        query = normalize(heads.query_head(frame), dim=1)
        with torch.no_grad():
            keys = [normalize(heads.key_head(x), dim=1) for x in frames_k]
        logits = torch.stack([(query * key).sum(1) for key in keys], dim=1) / TEMPERATURE
        return cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))

    def _video(self, tuple_q: Tensor, tuple_k: Tensor) -> Tensor:
        heads = self.losses["video"]
        query = normalize(heads.query_head(tuple_q.mean(1)), dim=1)
        with torch.no_grad():
            key = normalize(heads.key_head(tuple_k.mean(1)), dim=1)
        return self._against_bank("video", query, [key])

    def _order(self, tuple_q: Tensor, tuple_k: Tensor, batch: Batch) -> Tensor:
        heads = self.losses["order"]
        query = normalize(heads.query_head(tuple_q), dim=2)
        with torch.no_grad():
            key = normalize(heads.key_head(tuple_k), dim=2)
        logits = heads.classifier(torch.cat([query, key], dim=1).flatten(1))
        return cross_entropy(logits, batch["targets"]["shuffled"])


def check_same_losses() -> None:
    """Compare three steps of both on a network without batch statistics."""
    torch.manual_seed(0)
    module = make_module(TinyBackbone(width=8, norm="group"), queue_size=64)
    released, ours = ReleasedStep(module), OurStep(module)
    for index in range(3):
        batch = make_batch(4, 32, index)
        torch.testing.assert_close(ours(batch, index), released(batch, index), rtol=1e-4, atol=1e-4)


class LargestAllocation(TorchDispatchMode):
    """Records the largest tensor that an operation allocates."""

    def __init__(self) -> None:
        super().__init__()
        self.numel, self.operation = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        storages = {x.untyped_storage().data_ptr() for x in tree_leaves(args) if torch.is_tensor(x)}
        for x in tree_leaves(out):
            if torch.is_tensor(x) and x.untyped_storage().data_ptr() not in storages:
                numel = x.untyped_storage().nbytes() // x.element_size()
                if numel > self.numel:
                    self.numel, self.operation = numel, str(func)
        return out


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="steps that count")
    parser.add_argument("--batch", type=int, default=16, help="videos in a batch")
    parser.add_argument("--size", type=int, default=112, help="pixels of a picture's edge")
    parser.add_argument("--queue-size", type=int, default=131072, help="length of each queue")
    parser.add_argument("--least", type=float, default=1.15, help="ratio to reach")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    check_same_losses()

    torch.manual_seed(0)
    module = make_module(TorchvisionResNet(name="resnet18"), arguments.queue_size)
    released, ours = ReleasedStep(module), OurStep(module)
    batches = [make_batch(arguments.batch, arguments.size, seed) for seed in range(2)]
    comparison = compare(
        {
            RELEASED: lambda number: released(batches[number % 2], number),
            OURS: lambda number: ours(batches[number % 2], max(number, 0)),
        },
        baseline=RELEASED,
        repeats=arguments.repeats,
        targets={OURS: arguments.least},
        label="training step",
    )
    title = (
        f"training step, ResNet-18, {arguments.size} px, B {arguments.batch}, "
        f"K {arguments.queue_size}"
    )
    missed = report({title: comparison})

    with LargestAllocation() as largest:
        ours(batches[0], 0)
    limit = arguments.queue_size * DIM
    within = largest.numel < limit
    Console().print(
        f"largest allocation of a step: {largest.numel} elements by {largest.operation}; "
        f"K x D is {limit}: {'less' if within else '[red]missed[/red]'}"
    )
    return int(bool(missed) or not within)


if __name__ == "__main__":
    sys.exit(main())
