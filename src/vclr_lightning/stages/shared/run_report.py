"""Folders of runs as a result: curves, configuration, and what frozen features are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json, read_yaml
from vclr_lightning.evaluation.table import MEASURES, FrozenTable, merge_tables
from vclr_lightning.results import Bars, Chart, Charts, Result, Scalar, Table
from vclr_lightning.results.curves import charts_of, read_metrics

_KEYS = (
    *("name", "seed", "num_segments", "frames_per_clip", "image_size", "batch_size", "queue_size"),
    *("epochs", "init"),
)


@dataclass(frozen=True)
class Run:
    """What the folder of a run holds.

    Attributes:
        name: of the folder.
        charts: its curves.
        settings: from its configuration.
        frozen: measures of its frozen features, if it has any.
        scalars: of tasks without labels.
    """

    name: str
    charts: Sequence[Chart]
    settings: Mapping[str, str]
    frozen: FrozenTable | None = None
    scalars: Sequence[Scalar] = ()


def read_run(directory: str | Path) -> Run:
    """Read ``metrics.csv``, ``config.yaml`` and ``results.json`` of a run's folder.

    Raises:
        UserError: there is neither ``metrics.csv`` nor ``results.json``, or a file is damaged.
    """
    directory = Path(directory)
    file, metrics = directory / "results.json", directory / "metrics.csv"
    results: Any = {}
    if file.is_file():
        try:
            results = read_json(file)
        except UserError as error:
            raise UserError(
                f"{file} is damaged; remove it or run the evaluation again ({error})"
            ) from error
    results = results if isinstance(results, dict) else {}
    # without both, reading metrics.csv says which folder is none of a run
    charts = charts_of(read_metrics(metrics)) if metrics.exists() or not results else []
    try:
        scalars = list(held_out_scalars(results.get("held_out") or {}))
        frozen = FrozenTable.from_dict(results["frozen"]) if "frozen" in results else None
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run the evaluation again") from error
    return Run(directory.resolve().name, charts, run_settings(directory), frozen, scalars)


def held_out_scalars(held_out: Mapping[str, Any]) -> Iterator[Scalar]:
    """Yield what :func:`~vclr_lightning.stages.demo.held_out.held_out` has measured."""
    among = f" among {held_out['videos']}" if "videos" in held_out else ""
    for name, share in held_out.get("instance_r1", {}).items():
        chance = float(held_out["instance_chance"])
        title = f"same video found{among}, {name}"
        yield Scalar(f"instance_r1/{name}", float(share), chance=chance, title=title)
    if held_out.get("order_accuracy") is not None:
        share, chance = float(held_out["order_accuracy"]), float(held_out["order_chance"])
        yield Scalar("order", share, chance=chance, title="shuffled tuples recognised")


def result_of_runs(runs: Sequence[Run], *, title: str | None = None) -> Result:
    """Return a page about one run, or about several side by side, a line each in every chart.

    Raises:
        UserError: there is no run, or their tables do not fit together.
    """
    if not runs:
        raise UserError("no run is named; give the folder of one")
    tables = [run.frozen for run in runs if run.frozen is not None]
    frozen = frozen_content(merge_tables(tables)) if len(tables) == len(runs) else []
    charts = runs[0].charts if len(runs) == 1 else _overlaid(runs)
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    settings = {
        key: ", ".join(dict.fromkeys(run.settings[key] for run in runs if key in run.settings))
        for key in keys
    }
    return Result(
        title=title
        or f"{'Runs' if len(runs) > 1 else 'Run'} {', '.join(run.name for run in runs)}",
        scalars=runs[0].scalars if len(runs) == 1 else (),
        content=[*frozen, *training_content(charts)],
        provenance=settings,
        provenance_title="The run",
        page="curves.html",
    )


def frozen_content(frozen: FrozenTable) -> list[Bars | Table]:
    """Return measures of frozen features as bars, and with their spread as a table."""
    named = [row for row in frozen.rows if row.name != "chance"]
    chance = frozen.row("chance").values
    seeds = max(len(values) for row in named for values in row.values.values())
    spread = "Circles: single seeds; bars and table: their mean ± standard deviation, or one run."
    return [
        Bars(
            title="Frozen features against untrained ones and chance",
            text=(
                f"Measured on {frozen.test_videos} unseen videos with the {frozen.train_videos} "
                "training videos as gallery, and as what the linear probe is fitted to. R@1: the "
                "nearest training video shows the same action. Averaged features do not encode the "
                f"order of a video; concatenated over {frozen.segments} parts they do. Dashed: "
                "chance. " + (spread if seeds > 1 else "")
            ),
            groups={
                label: {row.name: row.values[measure] for row in named}
                for measure, label in MEASURES.items()
            },
            chance={label: chance[measure][0] for measure, label in MEASURES.items()},
        ),
        Table(
            columns=["accuracy, %", *MEASURES.values()],
            rows=[[row.name, *map(row.text, MEASURES)] for row in frozen.rows],
            marks=["strong", *[""] * len(named)],
        ),
    ]


def training_content(charts: Sequence[Chart], *, text: str = "") -> list[Charts]:
    """Return the curves of a run, if there are any."""
    if not charts:
        return []
    text = f"Over the steps of the run; dashed: chance. {text}".strip()
    return [Charts(title="Training", text=text, charts=charts)]


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


def run_settings(directory: Path) -> dict[str, str]:
    """Return what ``config.yaml`` of a run says about it, for a reader."""
    file = directory / "config.yaml"
    if not file.is_file():
        return {}
    config = read_yaml(file)
    settings = {key: str(config[key]) for key in _KEYS if config.get(key) is not None}
    if isinstance(backbone := config.get("backbone"), dict):
        target = str(backbone.get("_target_", "")).rpartition(".")[2]
        options = ", ".join(f"{k}={v}" for k, v in backbone.items() if not k.startswith("_"))
        settings["backbone"] = f"{target}({options})"
    objective = config.get("objective")
    losses = objective.get("objectives") if isinstance(objective, dict) else None
    if isinstance(losses, dict | list):
        settings["losses"] = ", ".join(map(str, losses))
    return settings
