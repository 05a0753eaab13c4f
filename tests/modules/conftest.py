"""Small networks and batches for the pretraining module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.optim import SGD
from torch.utils.data import DataLoader

from vclr_lightning.core.types import Batch
from vclr_lightning.modules import MomentumEncoder, PretrainModule
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder, VideoLevel

SIZE = 12
KEY_OPTIONS = [field.name for field in fields(MomentumEncoder)]
collect_ignore = ["distributed_run.py", "frame_methods_run.py"]  # scripts of their own


class Network(nn.Module):
    """One convolution, with or without BatchNorm; counts the pictures it is given."""

    num_features = 6
    clip_dims = 2

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=3)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.calls: list[int] = []

    def forward_map(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        y: Tensor = self.norm(self.conv(x))
        return y

    def pool(self, maps: Tensor) -> Tensor:
        return gelu(maps).flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_map(x))


@pytest.fixture
def make_network() -> type[Network]:
    return Network


def build_batch(videos: Iterable[int], *, segments: int = 3, epoch: int = 0) -> Batch:
    """A batch whose every sample depends on its video and epoch alone."""
    samples = [draw_sample(video, segments, epoch) for video in videos]

    def stack(kind: str) -> dict[str, Tensor]:
        return {name: torch.stack([s[kind][name] for s in samples]) for name in samples[0][kind]}

    ids = torch.tensor(list(videos))
    return Batch(
        views=stack("views"),
        rows=stack("rows"),
        targets=stack("targets"),
        frame_indices={},
        video_id=ids,
        group_id=ids // 2,
        label=torch.full_like(ids, -1),
        index=ids,
        rejected=[],
    )


def draw_sample(video: int, segments: int, epoch: int) -> dict[str, dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(1000 * epoch + video)
    clips = {"anchor": segments, "positive": segments, "second": 1, "extra": max(0, 3 - segments)}
    views = {
        name: torch.randint(0, 256, (n, 3, 1, SIZE, SIZE), generator=rng, dtype=torch.uint8)
        for name, n in clips.items()
        if n
    }
    positions = torch.arange(max(3, segments))
    x1 = int(torch.randint(2, (), generator=rng)) * (segments - 1)
    others = torch.cat([positions[:x1], positions[x1 + 1 :]])[:2]
    coins = torch.randint(2, (2,), generator=rng)
    shuffled = torch.arange(segments).roll(1)
    order = {
        f"{name}_order": shuffled if coin else torch.arange(segments)
        for name, coin in zip(("anchor", "positive"), coins, strict=True)
    }
    return {
        "views": views,
        "rows": {"x1": torch.tensor([x1]), "x2": others[:1], "x3": others[1:]},
        "targets": {**order, "shuffled": coins[0] + 2 * coins[1]},
    }


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(range(4), segments=3)``: videos 0 to 3."""
    return build_batch


def build_module(
    *,
    segments: int = 3,
    queue_size: int = 20,
    norm: bool = False,
    objectives: Mapping[str, Any] | None = None,
    **options: Any,
) -> PretrainModule:
    """All four objectives on :class:`Network`; anything can be overridden."""
    torch.manual_seed(0)
    queued: dict[str, Any] = {"embedding_dim": 4, "queue_size": queue_size}
    four = {
        "inter": partial(InterFrame, **queued),
        "intra": partial(IntraFrame, embedding_dim=4),
        "video": partial(VideoLevel, num_segments=segments, **queued),
        "order": partial(TemporalOrder, num_segments=segments, embedding_dim=4),
    }
    defaults: dict[str, Any] = {
        "backbone": Network(norm=norm),
        "objectives": four if objectives is None else objectives,
        "optimizer": partial(SGD, lr=0.1, momentum=0.9),
    }
    key = {name: options.pop(name) for name in list(options) if name in KEY_OPTIONS}
    options |= {"batches": key["batches"]} if "batches" in key else {}
    options = (
        defaults | {"encoders": {"key": MomentumEncoder(**{"momentum": 0.9, **key})}} | options
    )
    if isinstance(options["backbone"], type):
        options["backbone"] = options["backbone"]()  # drawn from the seed above, like the heads
    return PretrainModule(**options)


@pytest.fixture
def make_module() -> Callable[..., PretrainModule]:
    return build_module


@pytest.fixture
def fit() -> Callable[..., Trainer]:
    """Train on given batches in their order, one epoch unless told otherwise."""

    def run(
        module: PretrainModule,
        batches: list[Batch],
        *callbacks: Callback,
        ckpt_path: str | None = None,
        **options: Any,
    ) -> Trainer:
        trainer = Trainer(
            **(
                {
                    "max_epochs": 1,
                    "accelerator": "cpu",
                    "logger": False,
                    "enable_checkpointing": False,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "use_distributed_sampler": False,
                    "log_every_n_steps": 1,
                    "callbacks": list(callbacks),
                }
                | options
            )
        )
        loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
        trainer.fit(module, loader, ckpt_path=ckpt_path)
        return trainer

    return run
