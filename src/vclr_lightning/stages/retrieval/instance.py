"""Instance retrieval: how often two draws of one video are nearest to each other; no labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.functional.retrieval import instance_hits
from vclr_lightning.results import Result, Scalar, percent, present

if TYPE_CHECKING:
    from vclr_lightning.stages.features.extractor import FeatureExtractor

_VIEWS = ("anchor", "positive")


def instance_retrieval(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    test_split: str | None = None,
) -> Result:
    """Look each held-out video's second draw up by its first, and the other way round.

    The draws are those of ``data.pair_sampler``, augmented as in pretraining and always the same:
    what the evaluation during training logs as ``val/instance_r1``, here of any weights. Writes
    ``instance.json``, ``scores.csv`` and ``report.html``.

    Args:
        features: gives network and videos; nothing is taken from its cache.
        directory: where the files go.
        test_split: the videos; ``None``: ``val`` where there is one, else ``test``.

    Returns:
        ``r1``, its interval and chance level; ``test/videos``, ``test/groups``. Empty on other
        ranks than the first.

    Raises:
        UserError: the split has no videos that can be read.
    """
    split = features.test_split(test_split)
    if not is_rank_zero():
        return Result(title="Instance retrieval")
    table, hardware = features.data.split(split), features.hardware
    device = hardware.each[0]
    encode = frame_encoder(features.backbone.to(device), layer=features.layer)
    draws: dict[str, list[Tensor]] = {view: [] for view in _VIEWS}
    rows: list[int] = []
    left_out = 0
    with random_state_kept(), hardware.computing(device):
        loader = features.data.pair_loader(split, _VIEWS)
        for batch in track(loader, "instance retrieval", show=features.show):
            left_out += len(batch["rejected"])
            rows += batch["index"].tolist()
            for view, found in draws.items():
                clips = batch["views"].get(view)  # (B, n, C, T, H, W)
                if clips is not None and len(clips):
                    parts = torch.split(clips.flatten(0, 1).to(device), features.chunk)
                    encoded = torch.cat([encode(part).float().cpu() for part in parts])
                    found.append(encoded.view(*clips.shape[:2], -1).mean(dim=1))
    hits = instance_hits(*(torch.cat(found) for found in draws.values()))
    scores = VideoScores(
        videos=[str(table.path(row)) for row in rows],
        groups=[table.group_id(row) for row in rows],
        measures={"r1": hits.numpy()},
    )
    r1, chance = float(hits.mean()), 1 / len(rows)
    return present(
        Result(
            title="The same video again",
            summary=(
                f"Of two draws of each of {len(rows)} held-out videos, cropped and coloured as in "
                f"pretraining, {percent(r1)}% are nearest to each other among all; chance level is "
                f"{percent(chance)}%."
            ),
            scalars=[Scalar("r1", r1, chance=chance, interval=scores.intervals().get("r1"))],
            content=[scores.table()],
            provenance={"network": features.weights, "split": split},
            numbers={
                "test/videos": len(rows),
                "test/groups": scores.num_groups,
                "test/left_out": left_out,
            },
            file="instance",
            record={"r1": r1, "chance": chance, "split": split, "videos": len(rows)},
        ),
        directory,
    )
