"""The curves of a run, from what it logged."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.report.content import Chart
from vclr_lightning.report.curve import Curve, Point

logger = logging.getLogger(__name__)

_LONGEST = 1 << 20  # bytes of a header
_AT_ONCE = 1 << 22  # bytes of rows
LOSS_NAMES = {
    "inter": "inter-frame loss",
    "intra": "intra-frame loss",
    "video": "video-level loss",
    "order": "temporal-order loss",
}


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
        raise UserError(f"{path} cannot be read ({error}); give the folder of a run") from error
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
    """Arrange logged metrics in charts: losses, what they tell apart, and online measures.

    ``train/loss``, ``train/NAME/loss``, ``train/NAME/top1`` or ``accuracy`` with ``chance``, and
    ``val/NAME_r1`` with ``val/NAME_chance``; others are not drawn.

    Example:
        >>> logged = {"train/inter/loss": [(0, 2.0)], "train/inter/top1": [(0, 0.5)]}
        >>> [chart.title for chart in charts_of(logged)]
        ['inter-frame loss', 'inter: positive ranked first']
    """
    charts: list[Chart] = []
    if "train/loss" in metrics:
        charts.append(Chart("sum of the losses", {"loss": metrics["train/loss"]}))
    split = [name.split("/") for name in metrics]
    names = [p[1] for p in split if len(p) == 3 and p[0] == "train" and p[2] == "loss"]
    for name in names:
        title = LOSS_NAMES.get(name, f"loss of {name}")
        charts.append(Chart(title, {"loss": metrics[f"train/{name}/loss"]}))
    for name in names:
        for measure, title in [
            ("top1", f"{name}: positive ranked first"),
            ("accuracy", f"{name}: accuracy"),
        ]:
            if (points := metrics.get(f"train/{name}/{measure}")) is not None:
                level = metrics.get(f"train/{name}/chance")
                charts.append(Chart(title, {measure: points}, _last(level), percent=True))
    for name, title in [
        ("instance", "unseen: other draw ranked first"),
        ("knn", "unseen: nearest has the label"),
    ]:
        if (points := metrics.get(f"val/{name}_r1")) is not None:
            level = metrics.get(f"val/{name}_chance")
            charts.append(Chart(title, {"R@1": points}, _last(level), percent=True))
    ranks = {n: metrics[key] for n in names if (key := f"train/{n}/effective_rank") in metrics}
    if ranks:
        charts.append(Chart("effective rank of the embeddings", ranks))
    return charts


def _last(points: Iterable[Point] | None) -> float | None:
    return [*points][-1][1] if points is not None else None
