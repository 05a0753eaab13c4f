"""The jobs of a sweep, and one table of what they measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.overrides import short_keys
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.core.screen import PlainTable

if TYPE_CHECKING:
    from rich.table import Table

_MEASURES = 5  # on the screen; the files hold all
_LONGEST = 20  # characters of a name or value on the screen
_LEAST = 26  # columns for the settings, where they would take more


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: its place in the sweep.
        overrides: of its command, ``KEY=VALUE``.
        folder: of its run.
        values: what it measured.
        status: ``done``, ``failed`` or ``stopped``; a job that was killed is ``stopped``.
        reason: why it failed.
    """

    number: int
    overrides: Sequence[str]
    folder: str
    values: Mapping[str, float] = field(default_factory=dict)
    status: str = "stopped"
    reason: str = ""


def record_job(folder: Path, job: Job) -> None:
    """Store a job in the sweep's folder, where it survives any end of the sweep."""
    write_record(folder / ".jobs" / f"{job.number}.json", asdict(job))


def read_jobs(folder: Path) -> list[Job]:
    """Return the recorded jobs of a sweep in their order."""
    records = map(read_record, (folder / ".jobs").glob("*.json"))
    fields = Job.__dataclass_fields__.keys()
    jobs = [Job(**record) for record in records if record and record.keys() == fields]
    return sorted(jobs, key=lambda job: job.number)


def forget_jobs(folder: Path) -> None:
    """Remove the jobs of an earlier sweep in the same folder."""
    clear_leftovers(folder / ".jobs")
    for file in (folder / ".jobs").glob("*.json"):
        file.unlink()


def measures_of(jobs: Sequence[Job]) -> list[str]:
    """Return the names of all measures: the one that chooses the best weights, those of held-out
    videos, the others."""
    names = dict.fromkeys(name for job in jobs for name in job.values)
    return sorted(names, key=lambda name: (name != "best", not name.startswith("val/")))


def sweep_rows(jobs: Sequence[Job], measures: Sequence[str], *, digits: int) -> list[list[str]]:
    """Return a header and the cells of each job: overrides that differ, measures, status, folder.

    Args:
        jobs: of a sweep.
        measures: columns.
        digits: significant ones of a number.

    Example:
        >>> jobs = [
        ...     Job(number=0, overrides=["seed=1", "lr=1"], folder="a", values={"best": 0.25}),
        ...     Job(number=1, overrides=["seed=1", "+lr=2"], folder="b", status="failed",
        ...         reason="the loss is not finite"),
        ... ]
        >>> for row in sweep_rows(jobs, ["best"], digits=4):
        ...     print(row)
        ['job', 'lr', 'best', 'status', 'folder']
        ['0', '1', '0.25', 'stopped', 'a']
        ['1', '2', '', 'failed: the loss is not finite', 'b']
    """
    settings = differing_settings(jobs)
    rows = [["job", *settings[0], *measures, "status", "folder"]] if jobs else []
    for job, one in zip(jobs, settings, strict=True):
        values = (_number(job, measure, digits) for measure in measures)
        status = f"{job.status}: {job.reason}" if job.reason else job.status
        rows.append([str(job.number), *one.values(), *values, status, job.folder])
    return rows


def differing_settings(jobs: Sequence[Job]) -> list[dict[str, str]]:
    """Return for each job the overrides that differ between jobs, all with the same keys."""
    pairs = [[o.lstrip("+~").partition("=") for o in job.overrides] for job in jobs]
    settings = [{key: value for key, _, value in words} for words in pairs]
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    return [{key: one.get(key, "") for key in differing} for one in settings]


def sweep_screen(jobs: Sequence[Job], *, width: int) -> Table:
    """Return the table for a terminal: what differed, ``best``, ``val/...``, and the status.

    Keys are shortened to what tells them apart, and long values in their middle. Settings have a
    column each, or together one where these would not fit; measures that do not fit are left out.

    Args:
        jobs: of a sweep.
        width: columns of the terminal.

    Example:
        >>> from vclr_lightning.core.screen import screen
        >>> jobs = [
        ...     Job(number=k, overrides=[f"a.tau={k}"], folder="", values={"best": 0.5})
        ...     for k in (0, 1)
        ... ]
        >>> screen(width=60).print(sweep_screen(jobs, width=60))  # doctest: +NORMALIZE_WHITESPACE
        sweep of 2 jobs
        ┏━━━━━┳━━━━━┳━━━━━━┳━━━━━━━━━┓
        ┃ job ┃ tau ┃ best ┃ status  ┃
        ┡━━━━━╇━━━━━╇━━━━━━╇━━━━━━━━━┩
        │   0 │ 0   │  0.5 │ stopped │
        │   1 │ 1   │  0.5 │ stopped │
        └─────┴─────┴──────┴─────────┘
    """
    settings = differing_settings(jobs)
    names = short_keys(list(settings[0]))
    cells = [[_brief(value) for value in one.values()] for one in settings]
    columns = [
        [_brief(name), *of] for name, of in zip(names, zip(*cells, strict=True), strict=True)
    ]
    measures = [m for m in measures_of(jobs) if m == "best" or m.startswith("val/")]
    measures = [m for m in measures if not m.endswith("chance")][:_MEASURES]
    ends = [["job", *(str(job.number) for job in jobs)], ["status", *(job.status for job in jobs)]]

    def taken(*groups: Sequence[Sequence[str]]) -> int:
        return 1 + sum(3 + max(map(len, column)) for group in groups for column in group)

    def numbers() -> list[list[str]]:
        return [[_brief(m), *(_number(job, m, 4) for job in jobs)] for m in measures]

    while measures and taken(ends, numbers()) > width - min(_LEAST, taken(columns)):
        measures.pop()
    if taken(ends, columns, numbers()) > width:
        pairs = (zip(names, row, strict=True) for row in cells)
        columns = [["settings", *(" ".join(f"{k}={v}" for k, v in row if v) for row in pairs)]]
    table = PlainTable(title=f"sweep of {len(jobs)} jobs", title_justify="left")
    shown = [ends[0], *columns, *numbers(), ends[1]]
    for column in shown:
        right = column is shown[0] or column[0] in map(_brief, measures)
        folds = column[0] == "settings"
        side: Literal["left", "right"] = "right" if right else "left"
        table.add_column(column[0], justify=side, overflow="fold", no_wrap=not folds)
    for k, job in enumerate(jobs, 1):
        table.add_row(*(c[k] for c in shown), style="red" if job.status == "failed" else "")
    return table


def failure_notes(jobs: Sequence[Job], *, width: int) -> list[str]:
    """Return a line on each failed job, with as much of its reason as fits.

    Example:
        >>> failure_notes([Job(number=3, overrides=[], folder="", status="failed",
        ...                    reason="the loss is not finite at step 7")], width=30)
        ['job 3: the loss is not finite…']
    """
    lines = (f"job {job.number}: {job.reason}" for job in jobs if job.status == "failed")
    return [line if len(line) <= width else f"{line[: width - 1].rstrip()}…" for line in lines]


def _brief(text: str) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"


def _number(job: Job, measure: str, digits: int) -> str:
    return f"{job.values[measure]:.{digits}g}" if measure in job.values else ""


def write_table(folder: Path) -> list[Job]:
    """Write ``sweep.csv`` and ``sweep.md`` with every measure, and return the recorded jobs.

    Without any, as after a mistake in the command, the tables of an earlier sweep stay.
    """
    if not (jobs := read_jobs(folder)):
        return []
    measures = measures_of(jobs)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sweep_rows(jobs, measures, digits=17))
    header, *rows = sweep_rows(jobs, measures, digits=4)
    rows = [header, ["---"] * len(header), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    markdown = "".join(f"| {' | '.join(row)} |\n" for row in escaped)
    for name, content in {"sweep.csv": text.getvalue(), "sweep.md": markdown}.items():
        with replacing(folder / name) as sink:
            sink.write(content.encode())
    return jobs
