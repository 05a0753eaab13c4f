"""One CSV file of everything that was logged."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from vclr_lightning.core.errors import UserError

_FIRST = ["step", "epoch"]


class CSVLogger(Logger):
    """Writes ``metrics.csv``: one row a step, one column a metric, numbers in full precision.

    What is logged at one step in several calls shares a row; a metric seen for the first time adds
    a column. Each row is in the file when the call returns. An existing file is continued;
    :meth:`rewind` cuts it back to where a checkpoint stands. Works with any ``Trainer``.

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
        self._columns: list[str] | None = None
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
        """Nothing: the run's configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add ``metrics`` to the row of ``step``."""
        self._open()
        assert self._columns is not None
        values = {"step": str(step if step is not None else 0)}
        values |= {name: _text(value) for name, value in metrics.items() if name != "step"}
        try:
            if self._row.get("step") == values["step"]:
                self._row |= values
            else:
                self._row, self._row_start = values, self.path.stat().st_size
            if new := [name for name in values if name not in self._columns]:
                self._columns += new
                rows = _read(self.path)[1]
                self._rewrite([row for row in rows if row["step"] != values["step"]])
                self._row_start = self.path.stat().st_size
            self._write_row()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free some space on its disk and give"
                " the same command again"
            ) from error

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Forget the rows of ``step`` and of all later ones."""
        self._open()
        self._rewrite([row for row in _read(self.path)[1] if int(row["step"]) < step])
        self._row = {}

    @rank_zero_only
    def sync(self) -> None:
        """Make what is written survive a power cut."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _open(self) -> None:
        if self._columns is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns, rows = _read(self.path)
        self._columns = columns or list(_FIRST)
        self._rewrite(rows)

    def _write_row(self) -> None:
        line = _line([self._row.get(name, "") for name in self._columns or []])
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), line, self._row_start)
            file.truncate(self._row_start + len(line))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        columns = self._columns or []
        lines = [_line(columns), *(_line([row.get(c, "") for c in columns]) for row in rows)]
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_bytes(b"".join(lines))
        os.replace(partial, self.path)


def _text(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _line(values: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue().encode()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows: a line that was cut off by a kill is left out."""
    if not path.exists():
        return [], []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode()
    columns, *rows = list(csv.reader(io.StringIO(whole))) or [[]]
    return columns, [dict(zip(columns, r, strict=True)) for r in rows if len(r) == len(columns)]
