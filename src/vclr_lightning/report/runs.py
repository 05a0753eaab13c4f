"""What the folders of runs tell, for a page about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json, read_yaml
from vclr_lightning.evaluation.table import FrozenTable, merge_tables
from vclr_lightning.report.content import Chart, Content, Score
from vclr_lightning.results.curves import charts_of, read_metrics

FACTS = (
    "name",
    "seed",
    "num_segments",
    "frames_per_clip",
    "image_size",
    "batch_size",
    "queue_size",
    "epochs",
    "init",
)


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells.

    Attributes:
        name: of the folder.
        charts: its curves.
        facts: from its configuration.
        frozen: measures of its frozen features, if it has any.
        scores: of tasks without labels.
    """

    name: str
    charts: Sequence[Chart]
    facts: Mapping[str, str]
    frozen: FrozenTable | None = None
    scores: Sequence[Score] = ()


def read_run(directory: str | Path) -> Run:
    """Read ``metrics.csv``, ``config.yaml`` and ``results.json`` of a run's folder.

    Raises:
        UserError: there is neither ``metrics.csv`` nor ``results.json``, or a file is damaged.
    """
    directory = Path(directory)
    file = directory / "results.json"
    results = _json(file)
    metrics = directory / "metrics.csv"
    # without both, reading the one says which folder is none of a run
    charts = charts_of(read_metrics(metrics)) if metrics.exists() or not results else []
    try:
        scores = list(_scores(results.get("held_out") or {}))
        frozen = FrozenTable.from_dict(results["frozen"]) if "frozen" in results else None
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run the evaluation again") from error
    return Run(directory.resolve().name, charts, _facts(directory), frozen, scores)


def _scores(held_out: Mapping[str, Any]) -> Iterator[Score]:
    among = f" among {held_out['videos']}" if "videos" in held_out else ""
    for name, share in held_out.get("instance_r1", {}).items():
        title = f"same video found{among}, {name}"
        yield Score(title, float(share), float(held_out["instance_chance"]))
    if held_out.get("order_accuracy") is not None:
        share, level = float(held_out["order_accuracy"]), float(held_out["order_chance"])
        yield Score("shuffled tuples recognised", share, level)


def content_of(
    runs: Sequence[Run], *, title: str | None = None
) -> tuple[Content, FrozenTable | None]:
    """Return a page about runs, and the table of their frozen features if all have one.

    Several runs share their charts, one line each.

    Raises:
        UserError: there is no run, or their tables do not fit together.
    """
    if not runs:
        raise UserError("no run is named; give the folder of one")
    tables = [run.frozen for run in runs if run.frozen is not None]
    frozen = merge_tables(tables) if len(tables) == len(runs) else None
    names = ", ".join(run.name for run in runs)
    content = Content(
        title=title or f"{'Runs' if len(runs) > 1 else 'Run'} {names}",
        facts=_joined([run.facts for run in runs]),
        charts=runs[0].charts if len(runs) == 1 else _overlaid(runs),
        scores=runs[0].scores if len(runs) == 1 else (),
    )
    return content, frozen


def _overlaid(runs: Sequence[Run]) -> list[Chart]:
    """Return a chart for each title, with a line for each run where a run has one line."""
    charts: list[Chart] = []
    for title in dict.fromkeys(chart.title for run in runs for chart in run.charts):
        found = [(run.name, chart) for run in runs for chart in run.charts if chart.title == title]
        lines = {
            name if len(chart.lines) == 1 else f"{name}, {line}": points
            for name, chart in found
            for line, points in chart.lines.items()
        }
        first = found[0][1]
        charts.append(Chart(title=title, lines=lines, chance=first.chance, percent=first.percent))
    return charts


def _joined(facts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    keys = dict.fromkeys(key for one in facts for key in one)
    return {key: ", ".join(dict.fromkeys(one[key] for one in facts if key in one)) for key in keys}


def _facts(directory: Path) -> dict[str, str]:
    file = directory / "config.yaml"
    if not file.is_file():
        return {}
    config = read_yaml(file)
    facts = {key: str(config[key]) for key in FACTS if config.get(key) is not None}
    if isinstance(backbone := config.get("backbone"), dict):
        target = str(backbone.get("_target_", "")).rpartition(".")[2]
        options = ", ".join(f"{k}={v}" for k, v in backbone.items() if not k.startswith("_"))
        facts["backbone"] = f"{target}({options})"
    objective = config.get("objective")
    losses = objective.get("objectives") if isinstance(objective, dict) else None
    if isinstance(losses, dict | list):
        facts["losses"] = ", ".join(map(str, losses))
    return facts


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = read_json(file)
    except UserError as error:
        raise UserError(
            f"{file} is damaged; remove it or run the evaluation again ({error})"
        ) from error
    return content if isinstance(content, dict) else {}
