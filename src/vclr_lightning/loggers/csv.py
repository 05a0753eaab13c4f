"""All logged metrics in one CSV file."""

from __future__ import annotations

import csv
import errno
import io
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.lightning import Logger, rank_zero_only

logger = logging.getLogger(__name__)

_FIRST = ["step", "epoch"]
_LONGEST = 1 << 20  # bytes of a line; longer ones are damaged


class CSVLogger(Logger):
    """Writes ``metrics.csv``: one row a step, one column a metric, numbers in full precision.

    All calls for one step share a row; a new metric adds a column. Each row is in the file when the
    call returns, and on the disk after :meth:`sync`. An existing file is continued; :meth:`rewind`
    cuts it back to a checkpoint's step. Rows damaged by a power cut or an editor are dropped; a
    file that is no table of metrics is kept under another name. The file is never held in memory.
    Works with any ``Trainer``.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> logger = CSVLogger(directory=folder)
        >>> logger.log_metrics({"loss": 0.1}, step=0)
        >>> logger.log_metrics({"loss": 0.2, "r1": 1.0}, step=1)
        >>> print(logger.path.read_text().strip())
        step,epoch,loss,r1
        0,,0.1,
        1,,0.2,1.0
    """

    def __init__(self, *, directory: str | Path) -> None:
        super().__init__()
        self.path = Path(directory) / "metrics.csv"
        self._columns: list[str] = []
        self._row: dict[str, str] = {}
        self._row_start = 0

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's configuration has its own file."""

    def log_result(self, result: Any) -> None:
        """Nothing: a stage's result has files of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add ``metrics`` to the row of ``step``."""
        values = {"step": str(step if step is not None else 0)}
        named = ((" ".join(name.split()), value) for name, value in metrics.items())
        values |= {name: _text(value) for name, value in named if name != "step"}
        with self._writing():
            if not self._columns:
                self._continue(math.inf)
            if self._row.get("step") == values["step"]:
                self._row |= values
            else:
                self._row, self._row_start = values, self.path.stat().st_size
            if new := [name for name in values if name not in self._columns]:
                self._columns += new
                commas = b"," * len(new)
                rows = (row + commas for row, _ in self._rows(end=self._row_start))
                self._row_start = self._rewrite(rows)
            line = _line([self._row.get(name, "") for name in self._columns])
            with self.path.open("r+b") as file:
                file.seek(self._row_start)
                file.write(line)
                file.truncate()

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows of ``step`` and of all later steps."""
        with self._writing():
            self._continue(step)

    @rank_zero_only
    def sync(self) -> None:
        """Put all rows onto the disk, so that they survive a power cut."""
        if self.path.exists():
            with self._writing(), self.path.open("r+b") as file:
                os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "free some space on its disk" if full else "make it writable"
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; {advice} and give the same command "
                "again"
            ) from error

    def _continue(self, before: float) -> None:
        """Continue an existing file, with its intact rows of steps earlier than ``before``."""
        header, columns = _header(self.path)
        if header.strip(b"\0") and not columns:
            names = (self.path.with_name(f"metrics.damaged{n or ''}.csv") for n in count())
            aside = next(name for name in names if not name.exists())
            os.replace(self.path, aside)
            logger.warning("%s is no table of metrics; it is now %s", self.path, aside)
        self._columns, self._row = columns or list(_FIRST), {}
        if not columns or before <= 0:
            self._rewrite([])
            return

        commas = len(self._columns) - 1
        size = end = len(header)
        damaged = 0
        for row, at in self._rows():
            step = _step(row, commas)
            damaged += step is None
            if step is not None and step < before:
                size, end = size + len(row) + 1, at
        if damaged:
            logger.warning("%d damaged lines of %s are dropped", damaged, self.path)
        if size == end and header == _line(self._columns):
            os.truncate(self.path, end)  # all dropped rows are at the end
            return
        rows = ((row, _step(row, commas)) for row, _ in self._rows())
        self._rewrite(row for row, step in rows if step is not None and step < before)

    def _rows(self, end: float = math.inf) -> Iterator[tuple[bytes, int]]:
        """Yield the complete lines below the header, and where each ends."""
        with self.path.open("rb") as file:
            at = len(file.readline(_LONGEST))
            while (line := file.readline(_LONGEST)) and (at := at + len(line)) <= end:
                if line.endswith(b"\n"):
                    yield line.rstrip(b"\r\n"), at

    def _rewrite(self, rows: Iterable[bytes]) -> int:
        """Replace the file, a row at a time; return where it ends."""
        with replacing(self.path) as sink:
            sink.write(_line(self._columns))
            for row in rows:
                sink.write(row + b"\n")
            return sink.tell()


def _text(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _line(values: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue().encode()


def _step(row: bytes, commas: int) -> int | None:
    """The step of a row; ``None`` where it is damaged."""
    number = row.partition(b",")[0]
    whole = row.count(b",") == commas and number.isdigit() and b"\0" not in row
    return int(number) if whole else None


def _header(path: Path) -> tuple[bytes, list[str]]:
    """The first line, and its column names; none if it is no header."""
    if not path.exists():
        return b"", []
    with path.open("rb") as file:
        line = file.readline(_LONGEST)
    try:
        columns = next(csv.reader([line.decode("utf-8-sig")]), [])
    except (UnicodeDecodeError, csv.Error):
        return line, []
    known = columns[:1] == ["step"] and len({*columns}) == len(columns) and line.endswith(b"\n")
    return line, columns if known and "\0" not in line.decode() else []
