"""The curves of a run, from what it logged."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.results.visuals import Chart

logger = logging.getLogger(__name__)

Point = tuple[float, float]  # step and value

_MOST = 512  # groups of neighbouring points; a chart is some 300 pixels wide
_LARGEST = float(np.finfo(np.float32).max)  # axes cannot be drawn up to the limits of a double
_LONGEST = 1 << 20  # bytes of a header
_AT_ONCE = 1 << 22  # bytes of rows
_ONLINE = {
    "instance": "unseen: other draw ranked first",
    "knn": "unseen: nearest has the label",
}
_LOSSES = {
    "inter": "inter-frame loss",
    "intra": "intra-frame loss",
    "video": "video-level loss",
    "order": "temporal-order loss",
}


class Curve:
    """Points in order, thinned to what a chart can show: memory and time stay bounded.

    Up to 512 points are kept as they are. Of more, groups of neighbours are kept by their lowest,
    highest and average value at their average step. What is not finite in single precision is left
    out. Iterating a curve gives the points to draw; ``last`` is the last one that was added.

    Example:
        >>> list(Curve([(0, 2.0), (10, 1.0)]))
        [(0.0, 2.0), (10.0, 1.0)]
        >>> long = list(Curve((step, float(step == 70_001)) for step in range(100_000)))
        >>> len(long) <= 1024, max(value for _, value in long)
        (True, 1.0)
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._sums = np.empty((0, 3))  # of steps and values, and how many
        self._low = self._high = np.empty(0)
        self.last: Point | None = None
        self.extend(points)

    def extend(self, points: Iterable[Point]) -> None:
        """Add points that come after those there are."""
        given = points if isinstance(points, np.ndarray) else [*points]
        new = np.array(given, dtype=np.float64).reshape(-1, 2)
        new = new[(np.abs(new) <= _LARGEST).all(axis=1)]  # not of NaN either
        if not len(new):
            return
        self.last = float(new[-1, 0]), float(new[-1, 1])
        sums = np.vstack([self._sums, np.column_stack([new, np.ones(len(new))])])
        firsts = sums[:, 2].cumsum() - sums[:, 2]
        # A power of two, so that groups that there are lie within those that they become.
        each = 2 ** max(0, math.ceil(math.log2((firsts[-1] + 1) / _MOST)))
        starts = np.flatnonzero(np.diff(firsts // each, prepend=-1))
        self._sums = np.add.reduceat(sums, starts)
        self._low = np.minimum.reduceat(np.append(self._low, new[:, 1]), starts)
        self._high = np.maximum.reduceat(np.append(self._high, new[:, 1]), starts)

    def __iter__(self) -> Iterator[Point]:
        steps = self._sums[:, 0] / self._sums[:, 2]
        for step, *ends in zip(*(a.tolist() for a in (steps, self._low, self._high)), strict=True):
            yield from ((step, value) for value in sorted({*ends}))

    def average(self) -> list[Point]:
        """Average each value with its neighbours, a twentieth of the points, fewer at the ends.

        Example:
            >>> Curve((step, float(step % 2)) for step in range(100)).average()[50]
            (50.0, 0.4)
        """
        steps, values, counts = self._sums.T
        ends = counts.cumsum()
        starts, middles = ends - counts, ends - counts / 2
        half = (int(counts.sum()) // 20 | 1) / 2
        windows = zip(
            np.searchsorted(ends, middles - half, side="right"),
            np.searchsorted(starts, middles + half),
            strict=True,
        )
        means = [float(values[a:b].sum() / counts[a:b].sum()) for a, b in windows]
        return list(zip((steps / counts).tolist(), means, strict=True))


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """Read a ``metrics.csv`` into curves by name, a part at a time.

    Damaged lines are left out with a warning.

    Raises:
        UserError: the file is missing, or is none of that kind.
    """
    path = Path(path)
    curves: dict[str, Curve] = {}
    good = bad = 0
    try:
        with path.open("rb") as file:
            header = file.readline(_LONGEST).decode("utf-8-sig")
            columns = next(csv.reader([header]), [])
            if "step" not in columns:
                raise UserError(f"{path} is no table of metrics with a column step")
            while lines := file.readlines(_AT_ONCE):
                rows = [row for line in lines if len(row := _numbers(line)) == len(columns)]
                good, bad = good + len(rows), bad + len(lines) - len(rows)
                table = np.array(rows).reshape(-1, len(columns))
                for number, name in enumerate(columns):
                    points = table[:, [columns.index("step"), number]]
                    if name not in ("step", "epoch") and np.isfinite(points[:, 1]).any():
                        curves.setdefault(name, Curve()).extend(points)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); give the folder of a run") from error
    if bad and not good:
        raise UserError(f"{path} is no table of metrics: none of its {bad} lines holds numbers")
    if bad:
        logger.warning("%d damaged lines of %s are left out", bad, path)
    return curves


def _numbers(line: bytes) -> list[float]:
    """The values of a line, NaN where there is none; nothing of a damaged one."""
    try:
        return [float(cell or b"nan") for cell in line.rstrip(b"\r\n").split(b",")]
    except ValueError:
        return []


def charts_of(metrics: Mapping[str, Iterable[Point]]) -> list[Chart]:
    """Arrange logged metrics in charts: losses, accuracies of the objectives, online evaluation.

    ``train/loss``, ``train/NAME/loss``, ``train/NAME/top1`` or ``accuracy`` with ``chance``, and
    ``val/NAME_r1`` with ``val/NAME_chance`` and, before training, ``start/val/NAME_r1``; others are
    not drawn.

    Example:
        >>> logged = {"train/inter/loss": [(0, 2.0)], "train/inter/top1": [(0, 0.5)]}
        >>> [chart.title for chart in charts_of(logged)]
        ['inter-frame loss', 'inter: positive ranked first']
    """
    charts: list[Chart] = []
    if "train/loss" in metrics:
        charts.append(Chart(title="sum of the losses", lines={"loss": metrics["train/loss"]}))
    split = [name.split("/") for name in metrics]
    names = [p[1] for p in split if len(p) == 3 and p[0] == "train" and p[2] == "loss"]
    for name in names:
        title = _LOSSES.get(name, f"loss of {name}")
        charts.append(Chart(title=title, lines={"loss": metrics[f"train/{name}/loss"]}))
    shares = [
        (f"train/{name}/{measure}", f"train/{name}/chance", measure, f"{name}: {words}")
        for name in names
        for measure, words in [("top1", "positive ranked first"), ("accuracy", "accuracy")]
    ]
    shares += [
        (f"val/{name}_r1", f"val/{name}_chance", "R@1", title) for name, title in _ONLINE.items()
    ]
    for key, reference, measure, title in shares:
        if (points := metrics.get(key)) is not None:
            chance, before = (_last(metrics.get(name)) for name in (reference, f"start/{key}"))
            lines = {measure: points}
            charts.append(
                Chart(title=title, lines=lines, chance=chance, before=before, percent=True)
            )
    ranks = {n: metrics[key] for n in names if (key := f"train/{n}/effective_rank") in metrics}
    if ranks:
        charts.append(Chart(title="effective rank of the embeddings", lines=ranks))
    return charts


def _last(points: Iterable[Point] | None) -> float | None:
    values = [value for _, value in points or ()]
    return values[-1] if values else None


def gains(values: Mapping[str, float]) -> list[str]:
    """Say in a sentence each what the evaluation during training measured before and at the end.

    Args:
        values: of a run, by name: ``val/NAME_r1`` and ``start/val/NAME_r1``, and beside them
            ``val/NAME_chance``.

    Example:
        >>> gains({"start/val/knn_r1": 0.18, "val/knn_r1": 0.297, "val/knn_chance": 0.125})
        ['unseen: nearest has the label: 18% before training, 29.7% at the end (chance 12.5%)']
    """
    found = []
    for name, title in _ONLINE.items():
        keys = (f"start/val/{name}_r1", f"val/{name}_r1", f"val/{name}_chance")
        before, after, chance = (
            None if (value := values.get(key)) is None else f"{100 * value:.3g}%" for key in keys
        )
        if before and after:
            beside = f" (chance {chance})" if chance else ""
            found.append(f"{title}: {before} before training, {after} at the end{beside}")
    return found
