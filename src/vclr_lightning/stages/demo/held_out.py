"""What a pretrained module knows of videos that it has not seen, without their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.core.screen import PlainTable
from vclr_lightning.core.types import Batch
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.evaluation import Encode, frame_encoder
from vclr_lightning.functional.retrieval import instance_recall
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import TemporalOrder


@dataclass(frozen=True)
class HeldOut:
    """Shares of the unseen videos, beside what no information reaches.

    Attributes:
        videos: how many there are.
        instance_r1: by name of the encoder, how often the nearest of all second draws is the
            video's own.
        order_accuracy: how often the order head tells which of the two draws is shuffled;
            ``None`` without one.
    """

    videos: int
    instance_r1: Mapping[str, float]
    order_accuracy: float | None

    @property
    def rows(self) -> list[tuple[str, float, float]]:
        """Name, share and chance of each task."""
        rows = [
            (f"find the same video, {name}", share, 1 / self.videos)
            for name, share in self.instance_r1.items()
        ]
        if self.order_accuracy is not None:
            rows.append(("shuffled tuples recognised", self.order_accuracy, 0.25))
        return rows

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for a JSON file."""
        return {
            "videos": self.videos,
            "instance_r1": dict(self.instance_r1),
            "instance_chance": 1 / self.videos,
            "order_accuracy": self.order_accuracy,
            "order_chance": 0.25,
        }

    def table(self) -> PlainTable:
        """Return a table for the terminal."""
        table = PlainTable(title=f"without labels, % of {self.videos} unseen videos")
        table.add_column("task")
        table.add_column("right", justify="right")
        table.add_column("chance", justify="right")
        for name, share, chance in self.rows:
            table.add_row(name, f"{100 * share:.1f}", f"{100 * chance:.1f}")
        return table


def held_out(
    module: PretrainModule, data: VideoDataModule, *, others: Mapping[str, Encode]
) -> HeldOut:
    """Measure ``module``, and ``others`` beside it, on two draws of every held-out video.

    Raises:
        UserError: there are no held-out videos.
    """
    encoders: dict[str, Encode] = {"VCLR": module.encode, **others}
    draws: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in encoders}
    right, videos = 0.0, 0
    for batch in data.pair_loader("val"):
        count = len(batch["video_id"])
        if not count:
            continue
        for name, encode in encoders.items():
            first, second = (
                _tuples(encode, batch["views"][view]).mean(1) for view in ("anchor", "positive")
            )
            draws[name].append((first, second))
        right += count * (_order_accuracy(module, batch) or 0)
        videos += count
    has_order = _order_objective(module) is not None
    return HeldOut(
        videos=videos,
        instance_r1={
            name: instance_recall(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))
            for name, pairs in draws.items()
        },
        order_accuracy=right / videos if has_order else None,
    )


def _tuples(encode: Encode, clips: Tensor) -> Tensor:
    features = encode(clips.flatten(0, 1))
    return features.view(*clips.shape[:2], -1)  # (B, S, F)


def _order_objective(module: PretrainModule) -> TemporalOrder | None:
    found = [o for o in module.objectives.values() if isinstance(o, TemporalOrder)]
    return found[0] if found else None


@torch.no_grad()
def _order_accuracy(module: PretrainModule, batch: Batch) -> float | None:
    objective = _order_objective(module)
    if objective is None or module.key_encoder is None:
        return None
    encode_key = frame_encoder(module.key_encoder, mean=module.pixels.mean, std=module.pixels.std)
    features = {
        "query": _tuples(module.encode, batch["views"]["anchor"]),
        "key": _tuples(encode_key, batch["views"]["positive"]),
    }
    return float(objective(features, batch).metrics["accuracy"])
