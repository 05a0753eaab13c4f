"""The jobs of a sweep, and one table of what they measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.reading import read_record, write_record


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
    """Return the names of all measures, the one that chooses the best weights first."""
    names = dict.fromkeys(name for job in jobs for name in job.values)
    return sorted(names, key=lambda name: name != "best")


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
    pairs = [[o.lstrip("+~").partition("=") for o in job.overrides] for job in jobs]
    settings = [{key: value for key, _, value in words} for words in pairs]
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    rows = [["job", *differing, *measures, "status", "folder"]]
    for job, one in zip(jobs, settings, strict=True):
        values = (f"{job.values[m]:.{digits}g}" if m in job.values else "" for m in measures)
        status = f"{job.status}: {job.reason}" if job.reason else job.status
        cells = (one.get(key, "") for key in differing)
        rows.append([str(job.number), *cells, *values, status, job.folder])
    return rows


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
