"""Whether more or less of a logged metric is better, and what it is drawn over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from vclr_lightning.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What a dashboard has to know of the metrics that a pattern fits.

    Attributes:
        pattern: of their names, with ``*`` for any text.
        goal: which values are better; ``None`` where neither is.
        axis: what they are drawn over: optimizer steps, or epochs.
    """

    pattern: str
    goal: Literal["max", "min"] | None = None
    axis: Literal["step", "epoch"] = "step"


DIRECTIONS: Sequence[Direction] = (
    Direction(pattern="val/*chance", axis="epoch"),
    Direction(pattern="val/*loss", goal="min", axis="epoch"),
    Direction(pattern="val/*", goal="max", axis="epoch"),
    Direction(pattern="train/*chance"),
    Direction(pattern="probe/time/[!n]*"),  # of clips changed in time: neither is better
    Direction(pattern="probe/*val_top1", goal="max", axis="epoch"),
    *(
        Direction(pattern=pattern, goal="min")
        for pattern in (
            *("*loss", "collapse/*alarm", "collapse/*alignment", "collapse/*uniformity"),
            "perf/data_wait",
        )
    ),
    *(
        Direction(pattern=pattern, goal="max")
        for pattern in (
            *("*top1", "*accuracy", "*_r1", "*effective_rank", "*rankme", "collapse/*"),
            "perf/*_per_s",
        )
    ),
)
"""The first that fits a name holds; a metric that none fits keeps its last value over steps."""


def directions(given: Mapping[str, Mapping[str, str]]) -> list[Direction]:
    """Return a user's directions, by pattern, before :data:`DIRECTIONS`.

    Raises:
        UserError: a goal or an axis is unknown.

    Example:
        >>> directions({"mine/*": {"goal": "max"}})[0]
        Direction(pattern='mine/*', goal='max', axis='step')
    """
    known = {"goal": ("max", "min"), "axis": ("step", "epoch")}
    for pattern, values in given.items():
        if not isinstance(values, Mapping):
            raise UserError(f"metrics.{pattern}={values} must be a goal and an axis by name")
        for key, value in values.items():
            if key not in known:
                raise UserError(f"metrics.{pattern} has no {key}; it has goal and axis")
            if value not in known[key]:
                raise UserError(
                    f"metrics.{pattern}.{key}={value} must be {' or '.join(known[key])}"
                )
    own = [Direction(pattern=pattern, **values) for pattern, values in given.items()]  # type: ignore[arg-type]
    return [*own, *DIRECTIONS]


def direction_of(name: str, among: Sequence[Direction] = DIRECTIONS) -> Direction | None:
    """Return the first direction that fits a metric, if any.

    Example:
        >>> direction_of("train/inter/loss").goal, direction_of("val/knn_r1").axis
        ('min', 'epoch')
        >>> direction_of("train/lr") is None
        True
    """
    return next((one for one in among if fnmatchcase(name, one.pattern)), None)
