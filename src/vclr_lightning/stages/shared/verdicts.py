"""How certain the numbers of evaluations are, and in words what follows from that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.evaluation.uncertainty import FILE, VideoScores
from vclr_lightning.results import TITLES
from vclr_lightning.stages.shared.labelled import count

if TYPE_CHECKING:
    from vclr_lightning.stages.shared.outcomes import Outcome

Interval = tuple[float, float]
"""Lower and upper end."""

Difference = tuple[float, float, float]
"""A difference, and the ends of its interval."""

_VERDICTS = {1: "above it", -1: "below it", 0: "no difference"}


def uncertainty(
    folder: Path, untrained: Path | None
) -> tuple[dict[str, Interval], dict[str, Difference]]:
    """Return intervals of what an evaluation measured, and differences from the untrained network.

    Args:
        folder: of the evaluation; ``scores.csv`` and ``scores_*.csv`` hold the single videos.
        untrained: that of the untrained network.

    Returns:
        Both by measure; empty where there are no scores, or no groups to resample.
    """
    intervals: dict[str, Interval] = {}
    differences: dict[str, Difference] = {}
    for file in sorted(folder.glob(f"{FILE}*.csv")):
        scores = VideoScores.read(file)
        intervals |= scores.intervals()
        if untrained is not None and (other := untrained / file.name).is_file():
            differences |= scores.differences(VideoScores.read(other))
    return intervals, differences


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """Say by which measures a network differs from an untrained one, and by which it does not.

    A sentence for all that was measured on the same videos. A difference counts where its
    interval does not hold 0.

    Example:
        >>> from vclr_lightning.stages.shared.outcomes import Outcome
        >>> outcome = Outcome(
        ...     name="a", stage="k-NN", dataset="mine", videos={"test": 37}, groups={"test": 6},
        ...     difference={"top1": (0.1, -0.02, 0.2)},
        ... )
        >>> verdicts([outcome])
        ['Against the untrained network, on mine (37 test videos of 6 groups): no difference by \
k-NN (top-1).']
    """
    found: dict[str, dict[int, dict[str, list[str]]]] = {}
    for one in outcomes:
        for measure, (_, low, high) in one.difference.items():
            sign = 1 if low > 0 else -1 if high < 0 else 0
            by_sign = found.setdefault(_measured_on(one), {})
            title = TITLES.get(measure, measure)
            by_sign.setdefault(sign, {}).setdefault(one.stage, []).append(title)
    sentences = []
    for videos, by_sign in found.items():
        parts = [
            f"{verdict} by "
            + ", ".join(f"{stage} ({', '.join(m)})" for stage, m in by_sign[sign].items())
            for sign, verdict in _VERDICTS.items()
            if sign in by_sign
        ]
        sentences.append(f"Against the untrained network, on {videos}: {'; '.join(parts)}.")
    return sentences


def _measured_on(one: Outcome) -> str:
    videos = one.videos.get("test")
    if videos is None:
        return one.dataset
    groups = one.groups.get("test", videos)
    of = f"of {groups:,} groups" if groups < videos else "of unknown groups"
    return f"{one.dataset} ({count(videos, 'test')} {of})"
