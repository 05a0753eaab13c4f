"""All jobs of a sweep in one table: what differed, what came of it, where it lies."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.files import clear_leftovers, replacing
from vclr_lightning.core.reading import read_record, write_record

if TYPE_CHECKING:
    from rich.table import Table

_RECORDS = ".jobs"  # folder below the sweep's, one file for each job
_SHOWN = 4  # measures on the screen; the files hold all
_BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: its place in the sweep.
        overrides: of its command, ``KEY=VALUE``.
        folder: where its run lies.
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

    @property
    def settings(self) -> dict[str, str]:
        """The overrides by key.

        Example:
            >>> Job(number=0, overrides=["+a=1", "b.c=x=y"], folder="").settings
            {'a': '1', 'b.c': 'x=y'}
        """
        pairs = (text.lstrip("+~").partition("=") for text in self.overrides)
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True, slots=True)
class SweepTable:
    """The jobs of a sweep, in their order.

    Example:
        >>> table = SweepTable([
        ...     Job(number=0, overrides=["seed=1", "lr=1"], folder="a", values={"best": 0.25},
        ...         status="done"),
        ...     Job(number=1, overrides=["seed=1", "lr=2"], folder="b", status="failed",
        ...         reason="the loss is not finite"),
        ... ])
        >>> print(table.markdown(), end="")
        | job | lr | best | status | folder |
        | --- | --- | --- | --- | --- |
        | 0 | 1 | 0.25 | done | a |
        | 1 | 2 |  | failed: the loss is not finite | b |
    """

    jobs: Sequence[Job]

    @property
    def measures(self) -> list[str]:
        """Names of what was measured, the one that chooses the best weights first."""
        names = dict.fromkeys(name for job in self.jobs for name in job.values)
        return sorted(names, key=lambda name: name != _BEST)

    @property
    def failed(self) -> list[Job]:
        """Jobs that failed."""
        return [job for job in self.jobs if job.status == "failed"]

    def rows(self, measures: Sequence[str], *, digits: int) -> list[list[str]]:
        """Return the titles of the columns, and the cells of each job.

        Args:
            measures: to show; settings are shown where they are not the same in all jobs.
            digits: significant ones of a number.
        """
        settings = [job.settings for job in self.jobs]
        keys = dict.fromkeys(key for one in settings for key in one)
        differing = [key for key in keys if len({one.get(key) for one in settings}) > 1]
        rows = [["job", *differing, *measures, "status", "folder"]]
        for job, one in zip(self.jobs, settings, strict=True):
            values = (f"{job.values[m]:.{digits}g}" if m in job.values else "" for m in measures)
            status = f"{job.status}: {job.reason}" if job.reason else job.status
            named = (one.get(key, "") for key in differing)
            rows.append([str(job.number), *named, *values, status, job.folder])
        return rows

    def csv(self) -> str:
        """Return the table as CSV, with every measure."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows(self.measures, digits=17))
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table as Markdown, with every measure."""
        header, *rows = self.rows(self.measures, digits=4)
        rows = [header, ["---"] * len(header), *rows]
        escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
        return "".join(f"| {' | '.join(row)} |\n" for row in escaped)

    def table(self) -> Table:
        """Return the table for the terminal, with the first measures and the folders' names."""
        from vclr_lightning.core.screen import PlainTable

        measures = self.measures[:_SHOWN]
        table = PlainTable(title=f"sweep of {len(self.jobs)} jobs", title_justify="left")
        parents = {Path(job.folder).parent for job in self.jobs}
        header, *rows = self.rows(measures, digits=4)
        for title in header:
            right = title == "job" or title in measures
            table.add_column(title, justify="right" if right else "left", overflow="fold")
        for job, cells in zip(self.jobs, rows, strict=True):
            style = "red" if job.status == "failed" else ""
            if len(parents) == 1:  # the table's files lie there, too, and their paths are shown
                cells[-1] = Path(job.folder).name
            table.add_row(*cells, style=style)
        return table

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``sweep.csv`` and ``sweep.md``, and return their paths."""
        files = folder / "sweep.csv", folder / "sweep.md"
        for file, text in zip(files, (self.csv(), self.markdown()), strict=True):
            with replacing(file) as sink:
                sink.write(text.encode())
        return files


def note(folder: Path, job: Job) -> None:
    """Keep what is known of a job, in the sweep's folder, so that no end of the sweep loses it."""
    write_record(folder / _RECORDS / f"{job.number}.json", asdict(job))


def forget(folder: Path) -> None:
    """Forget the jobs of an earlier sweep in the same folder."""
    clear_leftovers(folder / _RECORDS)
    for file in (folder / _RECORDS).glob("*.json"):
        file.unlink()


def read_jobs(folder: Path) -> SweepTable:
    """Return the jobs that were noted."""
    records = map(read_record, (folder / _RECORDS).glob("*.json"))
    kinds = {"number": int, "overrides": list, "folder": str, "status": str, "values": dict}
    jobs = [
        Job(**record)
        for record in records
        if record is not None
        and record.keys() == Job.__dataclass_fields__.keys()
        and all(isinstance(record[name], kind) for name, kind in kinds.items())
    ]
    return SweepTable(sorted(jobs, key=lambda job: job.number))
