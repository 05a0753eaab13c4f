"""The curves of a run, from what it logged."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.report.content import Chart

Points = list[tuple[float, float]]
LOSS_NAMES = {
    "inter": "inter-frame loss",
    "intra": "intra-frame loss",
    "video": "video-level loss",
    "order": "temporal-order loss",
}


def read_metrics(path: str | Path) -> dict[str, Points]:
    """Read a ``metrics.csv`` into ``(step, value)`` pairs by name.

    Raises:
        UserError: the file is missing, or is none of that kind.
    """
    path = Path(path)
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a run") from error
    metrics: dict[str, Points] = {}
    try:
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    metrics.setdefault(name, []).append((float(row["step"]), float(value)))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no table of metrics with a column step") from error
    return metrics


def charts_of(metrics: Mapping[str, Sequence[tuple[float, float]]]) -> list[Chart]:
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
            ("accuracy", f"{name}: told right"),
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


def _last(points: Sequence[tuple[float, float]] | None) -> float | None:
    return points[-1][1] if points else None
