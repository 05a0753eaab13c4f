"""Instance retrieval: how often two draws of one video are nearest to each other; no labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.core.screen import track
from vclr_lightning.core.types import Batch
from vclr_lightning.evaluation.encoders import frame_encoder
from vclr_lightning.evaluation.pair_features import pair_features
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
    draws: int = 1,
) -> Result:
    """Look each held-out video's second draw up by its first, and the other way round.

    The draws are those of ``data.pair_sampler``, augmented as in pretraining and always the same:
    what the evaluation during training logs as ``val/instance_r1``, here of any weights. Writes
    ``instance.json``, ``scores.csv`` and ``report.html``.

    Args:
        features: gives network and videos; nothing is taken from its cache.
        directory: where the files go.
        test_split: the videos; ``None``: ``val`` where there is one, else ``test``.
        draws: pairs of draws of each video, of which the mean is taken.

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
    hits: dict[int, list[float]] = {}
    left_out: set[int] = set()
    with random_state_kept():
        for draw in range(draws):
            rows: list[int] = []
            loader = features.data.pair_loader(split, _VIEWS, draw=draw)
            shown = track(loader, "instance retrieval", show=features.show)
            with hardware.computing(device):  # not the search, which is exact
                pairs = pair_features(
                    _noted(shown, rows, left_out),
                    encode,
                    views=_VIEWS,
                    device=device,
                    chunk=features.chunk,
                )
            if not pairs:
                raise UserError(f"none of the videos of {split} can be read; ask vclr doctor why")
            for row, hit in zip(rows, instance_hits(*pairs).tolist(), strict=True):
                hits.setdefault(row, []).append(hit)
    found = np.array([fmean(of_row) for of_row in hits.values()])
    scores = VideoScores(
        videos=[str(table.path(row)) for row in hits],
        groups=[table.group_id(row) for row in hits],
        measures={"r1": found},
    )
    r1, chance = float(found.mean()), 1 / len(hits)
    return present(
        Result(
            title="The same video again",
            summary=(
                f"Of two draws of each of {len(hits)} held-out videos, cropped and coloured as in "
                f"pretraining, {percent(r1)}% are nearest to each other among all; chance level is "
                f"{percent(chance)}%."
            ),
            scalars=[Scalar("r1", r1, chance=chance, interval=scores.intervals().get("r1"))],
            content=[scores.table()],
            provenance={"network": features.weights, "split": split},
            numbers={
                "test/videos": len(hits),
                "test/groups": scores.num_groups,
                "test/left_out": len(left_out),
            },
            file="instance",
            record={
                "r1": r1,
                "chance": chance,
                "split": split,
                "videos": len(hits),
                "draws": draws,
            },
        ),
        directory,
    )


def _noted(batches: Iterable[Batch], rows: list[int], left_out: set[int]) -> Iterator[Batch]:
    """Pass batches on, and note the rows of their videos and of those that cannot be read."""
    for batch in batches:
        rows += batch["index"].tolist()
        left_out |= {int(one["video_id"]) for one in batch["rejected"]}
        yield batch
