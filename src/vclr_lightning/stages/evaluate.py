"""Run the evaluations of a suite on the videos at hand, and put all numbers into one table."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError, causes
from vclr_lightning.core.random import random_state, set_random_state
from vclr_lightning.core.screen import notices_once
from vclr_lightning.results import Result, present, save
from vclr_lightning.stages.shared.outcomes import KINETICS, Outcome, results_of
from vclr_lightning.stages.shared.verdicts import uncertainty

logger = logging.getLogger(__name__)

Run = Callable[..., Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a suite: a stage, on a data set.

    Attributes:
        stage: what it does, such as ``"linear probe"``.
        dataset: on which videos, for a reader.
        run: called with ``directory``; returns a result, or shares by measure.
        untrained: the same of a network with random weights, to compare with.
        needs: what has to be given for it to run, by name; ``None`` where something is not.
        measures: of those that ``run`` returns, the ones to show; all where empty.
        videos: how many videos the published splits ``train`` and ``test`` have.
        paper: published numbers in %, by measure.
        pretrained: on what the published network was.
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
    pretrained: str = KINETICS
    page: str = "report.html"
    pictures: bool = False


def evaluate(
    *,
    evaluations: Mapping[str, Evaluation | None],
    directory: str | Path,
    ckpt: str | Path | None,
    untrained: bool = False,
) -> Result:
    """Run every evaluation whose videos are at hand.

    One that cannot be run is left out and shown with its reason; the others are not lost. Where an
    evaluation leaves the scores of single videos (``scores.csv``), its numbers have intervals over
    groups, and so have their differences from those of the untrained network.

    Args:
        evaluations: by name; ``None`` where one is turned off.
        directory: ``evaluation.json`` and ``evaluation.html`` are written there, and what each
            evaluation writes into a folder of its name.
        ckpt: weights that are evaluated.
        untrained: evaluate the same network with random weights, too.

    Returns:
        Every number as ``evaluation/measure``, the ends of its interval as
        ``evaluation/measure/low`` and ``.../high``, and its difference from the untrained network's
        as ``evaluation/measure/difference``.

    Raises:
        UserError: nothing could be run, or an evaluation failed; the table is written all the same.
    """
    directory = Path(directory)
    chosen = {name: one for name, one in evaluations.items() if one is not None}
    if not chosen:
        raise UserError("there is nothing to evaluate; add +suite=paper")
    outcomes: list[Outcome] = []
    parts: dict[str, Result] = {}
    before = random_state()
    with notices_once():  # several read the same videos
        for name, one in chosen.items():
            set_random_state(before)  # for the same random network, whatever was run before
            logger.info("%s, %s", one.stage, one.dataset)
            outcomes.append(_outcome(name, one, directory, untrained, parts))
            result = replace(results_of(outcomes, str(ckpt or "untrained")), parts=parts)
            if is_rank_zero():  # whatever ends the next one, these are kept
                save(result, directory)
    if is_rank_zero():
        present(result, directory)
    # What is done has a reason only where its untrained twin failed.
    failed = [one for one in outcomes if one.reason and one.status != "not run"]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(outcomes)} evaluations failed; the first, {failed[0].name}: "
            f"{failed[0].reason}"
        )
    if all(one.status == "not run" for one in outcomes):
        raise UserError(f"none of the {len(outcomes)} evaluations can be run; {outcomes[0].reason}")
    return result


def _outcome(
    name: str, one: Evaluation, directory: Path, untrained: bool, parts: dict[str, Result]
) -> Outcome:
    """Run an evaluation, and put what it returns under its name into ``parts``."""
    about: dict[str, Any] = {
        "name": name,
        "stage": one.stage,
        "dataset": one.dataset,
        "paper": dict(one.paper),
        "pretrained": one.pretrained,
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
    if isinstance(values, Result):
        parts[name] = values
    random: Mapping[str, float] | None = None
    if untrained and one.untrained is not None:
        set_random_state(begin)
        random, reason = _attempt(one.untrained, directory / f"{name}_untrained")
        if random is None:
            logger.error("%s on %s, untrained, failed: %s", one.stage, one.dataset, reason)
    page = directory / name / one.page
    shown = {} if one.pictures else _shown(values, one.measures)
    interval, difference = uncertainty(
        directory / name, None if random is None else directory / f"{name}_untrained"
    )
    videos, left_out = _counts(values, "videos"), _counts(values, "left_out")
    whole = {split: videos[split] + number for split, number in left_out.items() if number}
    about["published"] = whole | dict(one.videos)
    return Outcome(
        **about,
        values=shown,
        videos=videos,
        groups=_counts(values, "groups"),
        interval={measure: interval[measure] for measure in shown if measure in interval},
        chance={name: values[f"chance/{name}"] for name in shown if f"chance/{name}" in values},
        untrained=_shown(random or {}, one.measures),
        difference={measure: difference[measure] for measure in shown if measure in difference},
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


def _counts(values: Mapping[str, float], name: str) -> dict[str, int]:
    """Return the counts ``SPLIT/name`` by split."""
    found = {key.partition("/"): value for key, value in values.items()}
    return {split: int(value) for (split, _, what), value in found.items() if what == name}


def _shown(values: Mapping[str, float], measures: Sequence[str]) -> dict[str, float]:
    names = measures or [name for name in values if "/" not in name]
    return {name: float(values[name]) for name in names if name in values}


def deferred(node: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Run:
    """Return a function that builds what ``node`` describes when it is called, and calls it.

    A configuration gives it ``_recursive_: false``, so that nothing below ``node`` is built with
    the rest: an evaluation of several data sets opens each when its turn comes, and
    does not ask for those that are not at hand.

    Args:
        node: what Hydra instantiates: a function with ``_partial_: true``.
        changes: values to put into ``node`` first, by dotted key.

    Raises:
        UserError: from the function, if something below ``node`` finds a mistake.

    Example:
        >>> node = {"_target_": "builtins.dict", "_partial_": True, "a": {"b": 1, "c": 2}}
        >>> deferred(node, {"a.b": 5})(d=3)
        {'a': {'b': 5, 'c': 2}, 'd': 3}
    """

    def call(**arguments: Any) -> Any:
        from hydra.errors import InstantiationException
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        plain = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
        changed = OmegaConf.create(plain)
        for key, value in (changes or {}).items():
            OmegaConf.update(changed, key, value, merge=False)
        try:
            built = instantiate(changed, _convert_="all")
        except InstantiationException as error:  # Hydra's, whatever a part has raised
            mistakes = (cause for cause in causes(error) if isinstance(cause, UserError))
            raise next(mistakes, error) from error
        return built(**arguments)

    return call
