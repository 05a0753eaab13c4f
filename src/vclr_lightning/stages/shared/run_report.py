"""Folders of runs as a result: curves, configuration, and what frozen features are worth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_numbers
from vclr_lightning.evaluation.table import MEASURES, FrozenTable, merge_tables
from vclr_lightning.results import TITLES, Bars, Chart, Charts, Column, Link, Result, Table, bracket
from vclr_lightning.results.curves import gains
from vclr_lightning.stages.shared.run_comparison import (
    difference_table,
    evaluations_of,
    main_measures,
    seed_table,
)
from vclr_lightning.stages.shared.run_folder import Run

_NAMED = 4  # runs whose names make the title
_ON_SCREEN = 2  # measures of each run


def result_of_runs(
    runs: Sequence[Run], *, title: str | None = None, page: str | Path = "curves.html"
) -> Result:
    """Return a page about one run, or about several side by side, a line each in every chart.

    Args:
        runs: those that cannot be read have that as their state.
        title: of the page.
        page: its file, which links are relative to.

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
    single = f"Run {runs[0].name}"
    many = f"{len(runs)} runs" if len(runs) > _NAMED else f"Runs {', '.join(r.name for r in runs)}"
    states = Counter(run.status for run in runs if run.status and run.status != "finished")
    base = Path(page).absolute().parent
    return Result(
        title=title or (single if len(runs) == 1 else many),
        summary=", ".join(f"{count} {status}" for status, count in states.items()),
        scalars=runs[0].scalars if len(runs) == 1 else (),
        content=[
            _states(runs, base),
            Table(
                title="Not finished",
                columns=["run", "state", "why"],
                rows=[[run.name, run.status, run.reason] for run in runs if run.reason],
            ),
            seed_table(runs),
            difference_table(runs),
            *frozen,
            *training_content(charts, runs[0].values if len(runs) == 1 else None),
            _evaluations(runs, base),
            _pages(runs, base),
        ],
        provenance=settings,
        provenance_title="The run" if len(runs) == 1 else "The runs",
        page=Path(page).name,
    )


def _states(runs: Sequence[Run], base: Path) -> Table:
    """Return the state and the measures of each run."""
    measures = main_measures(runs)
    marks = {"failed": "failed", "unreadable": "failed", "running": "soft", "stopped": "soft"}
    return Table(
        title="Runs" if len(runs) > 1 else "",
        columns=[
            *("run", "state", "steps"),
            *(Column(name, wide=k >= _ON_SCREEN) for k, name in enumerate(measures)),
        ],
        rows=[
            [
                _link(run.name, run.folder, base),
                *(run.status, None if run.step is None else run.step + 1),  # counted from 0
                *(_round(run.values.get(measure)) for measure in measures),
            ]
            for run in runs
        ],
        marks=[marks.get(run.status, "") for run in runs],
    )


def _evaluations(runs: Sequence[Run], base: Path) -> Table:
    """Return what other stages measured of the runs' weights, by their configurations."""
    rows = []
    for run in runs:
        for folder in evaluations_of(run.folder):
            values = read_numbers(folder / "result.json")
            for name, value in values.items():
                if "/" not in name:
                    chance = values.get(f"chance/{name}")
                    link = _link(f"{folder.parent.name}/{folder.name}", folder, base)
                    rows.append([run.name, link, TITLES.get(name, name), value, chance])
    return Table(
        title="Evaluations",
        text="Of weights in these folders, by runs of other stages beside them.",
        columns=[
            "run",
            "evaluation",
            "measure",
            Column("value", unit="%"),
            Column("chance", unit="%"),
        ],
        rows=rows,
    )


def _pages(runs: Sequence[Run], base: Path) -> Table:
    found = [
        [run.name, _link(path.name, path, base)]
        for run in runs
        for path in sorted([*run.folder.glob("*.html"), *run.folder.glob("train.log")])
    ]
    return Table(title="Pages and logs", columns=["run", "file"], rows=found, shown="page")


def _link(text: str, path: Path, base: Path) -> Link | str:
    if not path.exists():  # of a job that failed before it began
        return text
    return Link(text, quote(os.path.relpath(path.absolute(), base).replace(os.sep, "/")))


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


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
                "nearest training video shows the same action. Averaged features encode the order "
                "of a video only as far as a single frame shows it; concatenated over "
                f"{frozen.segments} parts they do. Dashed: chance. " + (spread if seeds > 1 else "")
            ),
            groups={
                label: {row.name: row.values[measure] for row in named}
                for measure, label in MEASURES.items()
            },
            chance={label: chance[measure][0] for measure, label in MEASURES.items()},
        ),
        _frozen_table(frozen),
    ]


def _frozen_table(frozen: FrozenTable) -> Table:
    """Return a row for each kind of features, and how far the first is ahead of untrained ones."""
    rows = [
        [row.name, *(f"{row.text(m)}\n{bracket(row.intervals.get(m))}".strip() for m in MEASURES)]
        for row in frozen.rows
    ]
    ahead = next((row.ahead for row in frozen.rows if row.name == "untrained"), {})
    if ahead:
        cells = [
            f"{100 * gain:+z.1f}\n{bracket((low, high))}" for gain, low, high in ahead.values()
        ]
        rows.insert(1, ["ahead of untrained", *cells])
    groups = "of unknown groups"
    if 0 < frozen.groups < frozen.test_videos:
        groups = f"of {frozen.groups} groups"
    none = [MEASURES[m] for m, (_, low, high) in ahead.items() if low <= 0 <= high]
    text = ""
    if frozen.groups > 1:
        text = (
            "In brackets: intervals at 95% from a bootstrap over groups (sources); "
            f"{frozen.test_videos} test videos {groups}."
        )
    if ahead:
        text += f" No difference from untrained is measured by: {'; '.join(none) or 'none'}."
    return Table(
        text=text,
        columns=["accuracy, %", *MEASURES.values()],
        rows=rows,
        marks=["strong", *[""] * (len(rows) - 1)],
    )


def training_content(
    charts: Sequence[Chart], values: Mapping[str, float] | None = None, *, text: str = ""
) -> list[Charts]:
    """Return the curves of a run, if there are any, and what training has changed."""
    if not charts:
        return []
    changed = [f"{gain[0].upper()}{gain[1:]}." for gain in gains(values or {})]
    dashed = "chance, and the level before training" if changed else "chance"
    text = " ".join(filter(None, [f"Over the steps of the run; dashed: {dashed}.", *changed, text]))
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
