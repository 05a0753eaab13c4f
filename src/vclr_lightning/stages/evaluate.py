"""Run what a suite names on the videos at hand, and put all numbers into one table."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from vclr_lightning import __version__
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.random import random_state, set_random_state
from vclr_lightning.core.screen import notices_once, show, wrote
from vclr_lightning.evaluation.outcomes import Outcome, Outcomes
from vclr_lightning.report.evaluation import write_evaluation_page

logger = logging.getLogger(__name__)

Run = Callable[..., Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a suite: a stage, on a data set.

    Attributes:
        stage: what it does, such as ``"linear probe"``.
        dataset: on which videos, for a reader.
        run: does it; called with ``directory``, returns shares by measure.
        untrained: the same of a network with random weights, to compare with.
        needs: what has to be given for it to run, by name; ``None`` where something is not.
        measures: of those that ``run`` returns, the ones to show; all where empty.
        videos: how many videos the published splits ``train`` and ``test`` have.
        paper: published numbers in %, by measure.
        page: file that ``run`` leaves for a reader.
        pictures: whether that page is all there is to see: nothing is measured.
    """

    stage: str
    dataset: str
    run: Run
    untrained: Run | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    measures: Sequence[str] = ()
    videos: Mapping[str, int] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    page: str = "report.html"
    pictures: bool = False


def evaluate(
    *,
    evaluations: Mapping[str, Evaluation | None],
    directory: str | Path,
    ckpt: str | Path | None,
    untrained: bool = False,
) -> dict[str, float]:
    """Run every evaluation whose videos are at hand.

    One that cannot be run is left out and shown with its reason; the others are not lost.

    Args:
        evaluations: by name; ``None`` where one is turned off.
        directory: ``evaluation.json`` and ``evaluation.html`` are written there, and what each
            evaluation writes into a folder of its name.
        ckpt: weights that are evaluated.
        untrained: evaluate the same network with random weights, too.

    Returns:
        Every number as ``evaluation/measure``.

    Raises:
        UserError: nothing could be run, or an evaluation failed; the table is written all the same.
    """
    directory = Path(directory)
    chosen = {name: one for name, one in evaluations.items() if one is not None}
    if not chosen:
        raise UserError("there is nothing to evaluate; add +suite=paper")
    rows = []
    before = random_state()
    with notices_once():  # several read the same videos
        for name, one in chosen.items():
            set_random_state(before)  # for the same random network, whatever was run before
            logger.info("%s, %s", one.stage, one.dataset)
            rows.append(_outcome(name, one, directory, untrained))
            outcomes = Outcomes(rows, str(ckpt or "untrained"))
            if is_rank_zero():  # whatever ends the next one, these are kept
                page = _write(outcomes, directory)
    if is_rank_zero():
        _print(outcomes, page)
    # What is done has a reason only where its untrained twin failed.
    failed = [
        row for row in rows if row.status == "failed" or (row.status == "done" and row.reason)
    ]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} evaluations failed; the first, {failed[0].name}: "
            f"{failed[0].reason}"
        )
    if all(row.status == "not run" for row in rows):
        raise UserError(f"none of the {len(rows)} evaluations can be run; {rows[0].reason}")
    return outcomes.values()


def _outcome(name: str, one: Evaluation, directory: Path, untrained: bool) -> Outcome:
    about: dict[str, Any] = {
        "name": name,
        "stage": one.stage,
        "dataset": one.dataset,
        "paper": dict(one.paper),
        "published": dict(one.videos),
    }
    if missing := [key for key, value in one.needs.items() if value is None]:
        given = " ".join(f"{key}=..." for key in missing)
        return Outcome(**about, status="not run", reason=f"give {given}")
    begin = random_state()
    values, reason = _attempt(one.run, directory / name)
    if values is None:
        logger.error("%s on %s failed: %s", one.stage, one.dataset, reason)
        return Outcome(**about, status="failed", reason=reason)
    random: Mapping[str, float] | None = None
    if untrained and one.untrained is not None:
        set_random_state(begin)
        random, reason = _attempt(one.untrained, directory / f"{name}_untrained")
        if random is None:
            logger.error("%s on %s, untrained, failed: %s", one.stage, one.dataset, reason)
    page = directory / name / one.page
    shown = {} if one.pictures else _shown(values, one.measures)
    videos, left_out = _below(values, "videos"), _below(values, "left_out")
    whole = {split: videos[split] + number for split, number in left_out.items() if number}
    about["published"] = whole | dict(one.videos)
    return Outcome(
        **about,
        values=shown,
        videos=videos,
        chance={name: values[f"chance/{name}"] for name in shown if f"chance/{name}" in values},
        untrained=_shown(random or {}, one.measures),
        reason=f"untrained: {reason}" if reason else "",
        page=os.path.relpath(page, directory) if page.is_file() else "",
        notes=getattr(values, "notes", ()),
    )


def _attempt(run: Run, directory: Path) -> tuple[Mapping[str, float] | None, str]:
    """Run; return what it measured, or why it did not."""
    try:
        # What a stage prints is on its page, too; here the table of all is to be seen.
        with redirect_stdout(StringIO()):
            return run(directory=directory), ""
    except UserError as error:
        return None, str(error)
    except Exception as error:  # one evaluation's fault must not lose the others
        logger.exception("an evaluation ended by a fault of the program")
        return None, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _below(values: Mapping[str, float], name: str) -> dict[str, int]:
    """Counts ``SPLIT/name``, by split."""
    found = {key.partition("/"): value for key, value in values.items()}
    return {split: int(value) for (split, _, what), value in found.items() if what == name}


def _shown(values: Mapping[str, float], measures: Sequence[str]) -> dict[str, float]:
    names = measures or [name for name in values if "/" not in name]
    return {name: float(values[name]) for name in names if name in values}


def _write(outcomes: Outcomes, directory: Path) -> Path:
    content = {**outcomes.as_dict(), "version": __version__}
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "evaluation.json") as sink:
        sink.write(json.dumps(content, indent=1).encode())
    return write_evaluation_page(directory / "evaluation.html", outcomes, directory=directory)


def _print(outcomes: Outcomes, page: Path) -> None:
    # Whole, where the table had to break it.
    reasons = [f"{row.name}: {row.reason}" for row in outcomes.rows if row.status == "not run"]
    show(outcomes.table(), *reasons, *outcomes.remarks)
    wrote(page)
