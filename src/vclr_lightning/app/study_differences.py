"""What the arms of a study measured, and how they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from vclr_lightning.app.studies import CELL, Study
from vclr_lightning.core.reading import read_numbers, read_record
from vclr_lightning.evaluation.uncertainty import FILE, VideoScores
from vclr_lightning.functional.seed_interval import seed_interval

Values = dict[str, dict[int, float]]
"""Of one measure, by arm and seed."""


@dataclass(frozen=True, kw_only=True)
class ArmDifference:
    """An arm against its baseline by one measure.

    Attributes:
        baseline: the other arm.
        seeds: the difference of each seed.
        low: lower end of the mean's 95 % interval.
        high: upper end.
        over: of what the interval is: ``"400 videos"``, ``"75 groups of 394 videos"`` or
            ``"seeds"``.
    """

    baseline: str
    seeds: Sequence[float]
    low: float
    high: float
    over: str

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return fmean(self.seeds)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval and all seeds, two or more, are on one side of 0, else 0."""
        if len(self.seeds) < 2:
            return 0
        above = self.low > 0 and min(self.seeds) > 0
        below = self.high < 0 and max(self.seeds) < 0
        return int(above) - int(below)

    def text(self) -> str:
        """Return it in points of %."""
        value, low, high = (f"{100 * one:+z.1f}" for one in (self.value, self.low, self.high))
        return value if math.isinf(self.low) else f"{value} ({low} to {high})"


def found_values(study: Study) -> dict[str, Values]:
    """Return each measure of each run that is done.

    Where the baseline's runs have been compared with untrained networks, these are an arm, too.
    """
    found: dict[str, Values] = {measure: {} for measure in study.measures}
    untrained: dict[str, dict[int, float]] = {}
    for arm, seed in study.cells():
        cell = study.cell_folder(arm, seed)
        numbers: dict[str, float] = {}
        for folder in map(Path, (read_record(cell / CELL) or {}).get("done", [])):
            name = "" if folder == cell else f"{folder.name}/"
            values = read_numbers(folder / "result.json")
            numbers |= {f"{name}{key}": value for key, value in values.items()}
        for measure, key in study.keys.items():
            if key not in numbers:
                continue
            found[measure].setdefault(arm, {})[seed] = numbers[key]
            gain = numbers.get(f"{key}/difference")
            if arm == study.baseline and gain is not None and "untrained" not in study.arms:
                untrained.setdefault(measure, {})[seed] = numbers[key] - gain
    for measure, of_random in untrained.items():
        found[measure]["untrained"] = of_random
    return found


def differences(study: Study, measure: str, values: Values) -> dict[str, ArmDifference]:
    """Return each arm against its baseline, paired by seed.

    Where the runs have left the scores of single videos, the interval is one over groups of videos,
    of each video's mean over the seeds; else it is Student's over seeds.
    """
    found = {}
    for arm in [arm for arm in study.arms if arm in values]:
        of_arm = values[arm]
        baseline = study.against.get(arm, study.baseline)
        base = values.get(baseline, {})
        seeds = sorted(of_arm.keys() & base.keys())
        if arm == baseline or not seeds:
            continue
        ours, others = [of_arm[s] for s in seeds], [base[s] for s in seeds]
        scores = [_scores(study, measure, one, seeds) for one in (arm, baseline)]
        low, high, over = _over_videos(*scores) or (*seed_interval(ours, others)[1:], "seeds")
        pairs = [value - other for value, other in zip(ours, others, strict=True)]
        found[arm] = ArmDifference(baseline=baseline, seeds=pairs, low=low, high=high, over=over)
    return found


def _scores(study: Study, measure: str, arm: str, seeds: Sequence[int]) -> list[VideoScores]:
    """Return the scores of an arm's runs, each with this measure alone."""
    folder, _, name = study.keys[measure].rpartition("/")
    files = [study.cell_folder(arm, seed) / folder / f"{FILE}.csv" for seed in seeds]
    read = [VideoScores.read(file) for file in files if file.is_file()]
    return [replace(s, measures={"": s.measures[name]}) for s in read if name in s.measures]


def _over_videos(
    ours: Sequence[VideoScores], others: Sequence[VideoScores]
) -> tuple[float, float, str] | None:
    """Return the interval of a difference, and of what it is; ``None`` without scores."""
    if not ours or len(ours) != len(others):
        return None
    first = ours[0]
    if any(list(one.videos) != list(first.videos) for one in ours):
        return None
    mean = np.mean([one.measures[""] for one in ours], axis=0)
    found = replace(first, measures={"": mean}).differences(*others)
    if not found:
        return None
    of = f"{len(first.videos)} videos"
    grouped = first.num_groups < len(first.videos)
    return *found[""][1:], f"{first.num_groups} groups of {of}" if grouped else of
