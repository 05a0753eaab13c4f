"""The page of a localisation, from its proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.functional.proposals import THRESHOLDS, AverageRecall, Floats, temporal_iou
from vclr_lightning.report.content import Chart, Score
from vclr_lightning.report.timeline import Proposal, Timeline, TimelinePage, write_timelines

if TYPE_CHECKING:
    from vclr_lightning.data.localization import AnnotatedVideo

_CURVES = (0.5, 0.75, 0.95)


def write_localization_page(
    path: str | Path,
    videos: Sequence[AnnotatedVideo],
    proposals: Sequence[Floats],
    *,
    curve: AverageRecall,
    chance: Mapping[str, float],
    notes: Sequence[str] = (),
    pictures: int = 12,
    shown: int = 5,
    seed: int = 0,
) -> Path:
    """Write the measures, their curve, and some videos' best proposals beside the truth.

    Args:
        path: of the page.
        videos: that were measured.
        proposals: of each.
        curve: recall by average number.
        chance: the measures of segments drawn at random, by name.
        notes: what a reader has to know of the numbers.
        pictures: videos to show, drawn by the seed.
        shown: proposals of each, those of the highest scores.
        seed: of the draw.

    Raises:
        UserError: the page cannot be written.
    """
    count = min(pictures, len(videos))
    rows = sorted(np.random.default_rng(seed).choice(len(videos), count, replace=False).tolist())
    segments = sum(len(video.spans) for video in videos)
    shares = {"mean of 0.5 to 0.95": curve.curve}
    for threshold in _CURVES:
        at = int(np.abs(THRESHOLDS - threshold).argmin())
        shares[f"tIoU {threshold:g}"] = curve.recall[at]
    # Every second point: so many are drawn as they are, more would be smoothed.
    lines = {
        name: list(zip(curve.average_number[1::2].tolist(), share[1::2].tolist(), strict=True))
        for name, share in shares.items()
    }
    numbers = (1, 5, 10, 100)
    page = TimelinePage(
        title="Temporal localisation",
        summary=(
            f"Proposals in {len(videos)} untrimmed videos with {segments} annotated segments. "
            "A segment is found if a proposal overlaps it by the tIoU asked for; AR@AN averages "
            "the share found over tIoU 0.5 to 0.95, with AN proposals a video on average. Chance: "
            "segments drawn at random."
        ),
        scores=[
            *(Score(f"AR@{n}", curve.at(n), chance[f"ar{n}"]) for n in numbers),
            Score("AUC", curve.auc, chance["auc"]),
        ],
        chart=Chart(title="recall by average number of proposals", lines=lines, percent=True),
        notes=notes,
        heading=(
            f"{count} of {len(videos)} videos, drawn with seed {seed}: truth, and the {shown} "
            "proposals of the highest scores"
        ),
        timelines=[_timeline(videos[row], proposals[row][:shown]) for row in rows],
    )
    return write_timelines(path, page)


def _timeline(video: AnnotatedVideo, proposals: Floats) -> Timeline:
    overlap = temporal_iou(proposals[:, :2], video.spans).max(axis=1, initial=0.0)
    return Timeline(
        name=video.name,
        duration=video.duration,
        truths=[
            (start, end, label)
            for (start, end), label in zip(video.spans.tolist(), video.labels, strict=True)
        ],
        proposals=[
            Proposal(start, end, score, float(iou))
            for (start, end, score), iou in zip(proposals.tolist(), overlap, strict=True)
        ],
    )
