"""What a localisation came to: files, a table, a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.screen import PlainTable, show, wrote
from vclr_lightning.data.localization import AnnotatedVideo, PositionSet
from vclr_lightning.evaluation.average_recall_metric import NUMBERS, AverageRecallAtAN
from vclr_lightning.evaluation.outcomes import MEASURES
from vclr_lightning.functional.proposals import random_proposals
from vclr_lightning.stages.localize.page import write_localization_page
from vclr_lightning.stages.localize.proposing import write_json, write_submission

if TYPE_CHECKING:
    from vclr_lightning.functional.proposals import Floats

logger = logging.getLogger(__name__)

_PROPOSALS = 100  # of a video, as many as a network's at most
_DRAWS = 8


def write_results(
    directory: Path,
    tested: PositionSet,
    proposals: Sequence[Floats],
    notes: Sequence[str],
    about: Mapping[str, Any],
    *,
    pictures: int,
    shown: int,
    seed: int,
) -> dict[str, float]:
    """Write the files of a finished run, show its table, and return the measures.

    Args:
        directory: the run's folder.
        tested: videos with proposals.
        proposals: of each.
        notes: what a reader has to know of the numbers.
        about: plain values to keep with the measures.
        pictures: videos on the page, drawn by the seed.
        shown: proposals of each.
        seed: of the page, and of segments drawn at random.

    Returns:
        ``ar1`` and so on, and ``chance/ar1``; nothing where no video is annotated.

    Raises:
        UserError: a file cannot be written.
    """
    write_submission(
        directory / "proposals.json",
        tested.videos,
        proposals,
        details="features of a network trained on other videos",
    )
    measured = [
        (video, found)
        for video, found in zip(tested.videos, proposals, strict=True)
        if len(video.spans)
    ]
    wrote(directory / "proposals.json")
    if not measured:
        logger.info("none of the %d videos is annotated: nothing is measured", len(tested))
        for file in ("localization.json", "report.html"):  # of an earlier measure
            (directory / file).unlink(missing_ok=True)
        return {}
    metric = AverageRecallAtAN(numbers=NUMBERS, sync_on_compute=False)
    metric.update([found for _, found in measured], [video.spans for video, _ in measured])
    values = {name: float(value) for name, value in metric.compute().items()}
    curve = metric.curve()
    chance = _chance([video for video, _ in measured], seed=seed)
    write_json(
        directory / "localization.json",
        {
            **values,
            "chance": chance,
            "videos": len(measured),
            "segments": sum(len(video.spans) for video, _ in measured),
            "average_number": curve.average_number.tolist(),
            "average_recall": curve.curve.tolist(),
            "notes": list(notes),
            **about,
        },
    )
    _print(values, chance, videos=len(measured))
    page = write_localization_page(
        directory / "report.html",
        [video for video, _ in measured],
        [found for _, found in measured],
        curve=curve,
        chance=chance,
        notes=notes,
        pictures=pictures,
        shown=shown,
        seed=seed,
    )
    wrote(page)
    return values | {f"chance/{name}": value for name, value in chance.items()}


def _chance(videos: Sequence[AnnotatedVideo], *, seed: int) -> dict[str, float]:
    """Return the measures of segments drawn at random, averaged over some draws."""
    draws = []
    for draw in range(_DRAWS):
        metric = AverageRecallAtAN(numbers=NUMBERS, sync_on_compute=False)
        for video in videos:
            found = random_proposals(numpy_generator(seed, "chance", draw, video.name), _PROPOSALS)
            found[:, :2] *= video.covered
            metric.update([found], [video.spans])
        draws.append({name: float(value) for name, value in metric.compute().items()})
    return {name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]}


def _print(values: Mapping[str, float], chance: Mapping[str, float], *, videos: int) -> None:

    table = PlainTable(title=f"proposals on {videos} videos, %", title_justify="left")
    table.add_column("")
    for name in values:
        table.add_column(MEASURES[name], justify="right")
    for title, numbers in (("the network's", values), ("at random", chance)):
        table.add_row(title, *(f"{100 * value:.2f}" for value in numbers.values()))
    show(table)
