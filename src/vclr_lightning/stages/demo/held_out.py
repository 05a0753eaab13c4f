"""Tasks without labels on videos that a pretrained module has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from vclr_lightning.core.types import Batch
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.evaluation import Encode, frame_encoder
from vclr_lightning.functional.retrieval import instance_recall
from vclr_lightning.modules import PretrainModule
from vclr_lightning.objectives import TemporalOrder


def held_out(
    module: PretrainModule,
    data: VideoDataModule,
    *,
    others: Mapping[str, Encode],
    name: str = "VCLR",
    draws: int = 1,
) -> dict[str, Any]:
    """Measure ``module``, under ``name``, and ``others`` on two draws of every held-out video.

    Args:
        module: what is measured.
        data: with held-out videos.
        others: encoders to measure beside it, by name.
        name: of the module in what is returned.
        draws: pairs of draws of each video; means over these are returned.

    Returns:
        ``videos``, how many there are; ``instance_r1``, by name of the encoder, the share of videos
        whose first draw is nearest to their own second draw; ``order_accuracy``, how often the
        order head predicts which of the two draws is shuffled, ``None`` without one; and
        ``instance_chance`` and ``order_chance``.

    Raises:
        UserError: there are no held-out videos.
    """
    encoders: dict[str, Encode] = {name: module.encode, **others}
    found: dict[str, list[float]] = {name: [] for name in encoders}
    right, videos = 0.0, 0
    for draw in range(draws):
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in encoders}
        for batch in data.pair_loader("val", draw=draw):
            count = len(batch["video_id"])
            if not count:
                continue
            for encoder, encode in encoders.items():
                first, second = (
                    _tuples(encode, batch["views"][view]).mean(1) for view in ("anchor", "positive")
                )
                pairs[encoder].append((first, second))
            right += count * (_order_accuracy(module, batch) or 0)
            videos += count
        for encoder, parts in pairs.items():
            found[encoder].append(
                instance_recall(*(torch.cat(part) for part in zip(*parts, strict=True)))
            )
    has_order = _order_objective(module) is not None
    return {
        "videos": round(videos / draws),
        "draws": draws,
        "instance_r1": {encoder: fmean(recalls) for encoder, recalls in found.items()},
        "instance_chance": draws / videos,
        "order_accuracy": right / videos if has_order else None,
        "order_chance": 0.25,
    }


def _tuples(encode: Encode, clips: Tensor) -> Tensor:
    features = encode(clips.flatten(0, 1))
    return features.view(*clips.shape[:2], -1)  # (B, S, F)


def _order_objective(module: PretrainModule) -> TemporalOrder | None:
    found = [o for o in module.objectives.values() if isinstance(o, TemporalOrder)]
    return found[0] if found else None


@torch.no_grad()
def _order_accuracy(module: PretrainModule, batch: Batch) -> float | None:
    objective = _order_objective(module)
    if objective is None or "key" not in module.encoders:
        return None
    encode_key = frame_encoder(
        module.encoders["key"], mean=module.pixels.mean, std=module.pixels.std
    )
    features = {
        "query": _tuples(module.encode, batch["views"]["anchor"]),
        "key": _tuples(encode_key, batch["views"]["positive"]),
    }
    return float(objective(features, batch).metrics["accuracy"])
