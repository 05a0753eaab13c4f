"""Proposals of a trained localisation network, their recall, and the files that hold both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vclr_lightning.core.files import replacing
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.average_recall_metric import NUMBERS, AverageRecallAtAN
from vclr_lightning.functional.proposals import (
    THRESHOLDS,
    AverageRecall,
    Floats,
    candidate_proposals,
    random_proposals,
    soft_nms,
    temporal_iou,
)
from vclr_lightning.results import Chart, Charts, Proposal, Result, Scalar, Timeline, Timelines

if TYPE_CHECKING:
    from torch import nn

    from vclr_lightning.data.localization import AnnotatedVideo, PositionSet
    from vclr_lightning.stages.shared.hardware import Hardware

_KEPT = 100  # proposals of a video
_DRAWS = 8  # of segments at random
_CURVES = (0.5, 0.75, 0.95)  # tIoU


@torch.no_grad()
def propose(
    model: nn.Module,
    videos: PositionSet,
    *,
    hardware: Hardware,
    batch_size: int = 16,
    keep: int = _KEPT,
    show: bool = False,
) -> list[Floats]:
    """Return the ranked proposals of every video, ``(n, 3)``: start and end in seconds, score.

    Args:
        model: a boundary-matching network.
        videos: at the positions that it takes.
        hardware: where it runs; the first of its devices.
        batch_size: videos at a time.
        keep: proposals of a video, at most.
        show: show a progress bar.
    """
    device = hardware.each[0]
    training = model.training
    model.eval().to(device)
    dtype = next(model.parameters()).dtype  # float64, trained so
    found = []
    starts = range(0, len(videos), batch_size)
    for first in track(starts, "proposals", show=show):
        features = videos.features[first : first + batch_size].transpose(1, 2)
        with hardware.computing(device):
            output = model(features.to(device, dtype))
        maps, start, end = (part.double().cpu().numpy() for part in output)
        for row in range(len(features)):
            ranked = soft_nms(candidate_proposals(start[row], end[row], maps[row]), keep=keep)
            video = videos.videos[first + row]
            ranked[:, :2] = np.minimum(ranked[:, :2] * video.covered, video.duration)
            found.append(ranked)
    model.train(training)
    return found


def write_submission(
    path: Path, videos: Sequence[AnnotatedVideo], proposals: Sequence[Floats]
) -> None:
    """Write proposals in the form of ActivityNet's challenge.

    Raises:
        UserError: the file cannot be written.
    """
    results = {
        video.name: [{"score": score, "segment": [start, end]} for start, end, score in p.tolist()]
        for video, p in zip(videos, proposals, strict=True)
    }
    details = "features of a network trained on other videos"
    content = {
        "version": "VERSION 1.3",
        "results": results,
        "external_data": {"used": True, "details": details},
    }
    with replacing(path) as sink:
        sink.write(json.dumps(content, indent=1).encode())


def localization_result(
    videos: Sequence[AnnotatedVideo],
    proposals: Sequence[Floats],
    *,
    notes: Sequence[str] = (),
    record: Mapping[str, Any] | None = None,
    numbers: Mapping[str, float] | None = None,
    pictures: int = 12,
    shown: int = 5,
    seed: int = 0,
) -> Result:
    """Return average recall, its curve, and some videos' best proposals next to the annotations.

    Args:
        videos: annotated ones.
        proposals: of each.
        notes: what a reader has to know of the numbers.
        record: plain values to keep with the measures.
        numbers: further numbers of the result.
        pictures: videos to show, drawn by the seed.
        shown: highest-scoring proposals of each.
        seed: of the draw, and of segments at random.
    """
    metric = AverageRecallAtAN(numbers=NUMBERS, sync_on_compute=False)
    metric.update(proposals, [video.spans for video in videos])
    values = {name: float(value) for name, value in metric.compute().items()}
    curve = metric.curve()
    chance = _chance(videos, seed=seed)
    segments = sum(len(video.spans) for video in videos)
    count = min(pictures, len(videos))
    rows = sorted(np.random.default_rng(seed).choice(len(videos), count, replace=False).tolist())
    content: list[Any] = [Charts(title="Average recall", charts=[_recall_chart(curve)])]
    if rows:
        content.append(
            Timelines(
                title="Annotations and proposals",
                text=f"{count} of {len(videos)} videos, drawn with seed {seed}. Top: annotations. "
                f"Below: the {shown} highest-scoring proposals with their score and their largest "
                "tIoU; coloured where it is at least 0.5.",
                videos=[_timeline(videos[row], proposals[row][:shown]) for row in rows],
            )
        )
    return Result(
        title="Temporal localisation",
        summary=(
            f"Proposals in {len(videos)} untrimmed videos with {segments} annotated segments. "
            "A segment is found if a proposal overlaps it by the required tIoU; AR@AN averages "
            "the share found over tIoU 0.5 to 0.95, with AN proposals a video on average. Chance: "
            "segments drawn at random."
        ),
        scalars=[Scalar(name, value, chance=chance[name]) for name, value in values.items()],
        notes=notes,
        content=content,
        numbers=numbers or {},
        file="localization",
        record={
            **values,
            "chance": chance,
            "videos": len(videos),
            "segments": segments,
            "average_number": curve.average_number.tolist(),
            "average_recall": curve.curve.tolist(),
            **(record or {}),
        },
    )


def _chance(videos: Sequence[AnnotatedVideo], *, seed: int) -> dict[str, float]:
    """Return the measures of segments drawn at random, averaged over some draws."""
    draws = []
    for draw in range(_DRAWS):
        metric = AverageRecallAtAN(numbers=NUMBERS, sync_on_compute=False)
        for video in videos:
            found = random_proposals(numpy_generator(seed, "chance", draw, video.name), _KEPT)
            found[:, :2] *= video.covered
            metric.update([found], [video.spans])
        draws.append({name: float(value) for name, value in metric.compute().items()})
    return {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]}


def _recall_chart(curve: AverageRecall) -> Chart:
    shares = {"mean of 0.5 to 0.95": curve.curve}
    for threshold in _CURVES:
        at = int(np.abs(THRESHOLDS - threshold).argmin())
        shares[f"tIoU {threshold:g}"] = curve.recall[at]
    # Every second point: this many are drawn unsmoothed.
    lines = {
        name: list(zip(curve.average_number[1::2].tolist(), share[1::2].tolist(), strict=True))
        for name, share in shares.items()
    }
    return Chart(title="recall by average number of proposals", lines=lines, percent=True)


def _timeline(video: AnnotatedVideo, proposals: Floats) -> Timeline:
    overlap = temporal_iou(proposals[:, :2], video.spans).max(axis=1, initial=0.0)
    spans = zip(video.spans.tolist(), video.labels, strict=True)
    return Timeline(
        name=video.name,
        duration=video.duration,
        truth=[(start, end, label) for (start, end), label in spans],
        proposals=[
            Proposal(start=start, end=end, score=score, iou=float(iou))
            for (start, end, score), iou in zip(proposals.tolist(), overlap, strict=True)
        ],
    )
