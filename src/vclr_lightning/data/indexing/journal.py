"""Keep what was found out about each file, so that no file is probed twice."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import sealed, unsealed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What probing a file gave, and the size and time it had then.

    Attributes:
        path: relative to the root.
        size: bytes.
        mtime_ns: time of its last change, nanoseconds.
        ctime_ns: see :class:`~vclr_lightning.data.indexing.entries.Rejected`; -1 for a folder.
        values: probed fields of a :class:`~vclr_lightning.data.manifest.Row`, if it is usable.
        reason: why it is not, otherwise.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = -1
    values: Mapping[str, Any] | None = None
    reason: str | None = None


class Journal:
    """A file of outcomes, one line each, that outlives a run stopped at any moment.

    A context manager that closes the file; the file is begun when the first outcome is added.

    Args:
        file: where to keep them.
        key: what outcomes depend on beside the files; those of another key are not read.
    """

    def __init__(self, file: Path, key: Mapping[str, object]) -> None:
        self._file = file
        self._key = json.loads(json.dumps(key))
        self._sink: io.FileIO | None = None  # which holds nothing back

    def read(self) -> dict[str, Outcome]:
        """Return the outcomes by path; none where the key differs or nothing was kept."""
        try:
            lines = self._file.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return {}
        content = [_parse(line, self._file) for line in lines if line]
        if not content or content[0] != self._key:
            return {}
        outcomes = [outcome for fields in content[1:] if (outcome := _outcome(fields))]
        if damaged := len(content) - 1 - len(outcomes):
            logger.info("left out %d lines of %s that are torn or damaged", damaged, self._file)
        return {outcome.path: outcome for outcome in outcomes}

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; it is in the file when this returns.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            sink = self._open() if self._sink is None else self._sink
            fields = {name: getattr(outcome, name) for name in Outcome.__slots__}
            _write(sink, sealed(json.dumps(fields)) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._file}: {error.strerror}") from error

    def _open(self) -> io.FileIO:
        known = bool(self.read())
        self._file.parent.mkdir(parents=True, exist_ok=True)
        sink = self._sink = io.FileIO(self._file, "a" if known else "w")
        # The line break ends a torn line.
        _write(sink, "\n" if known else sealed(json.dumps(self._key)) + "\n")
        return sink

    def remove(self) -> None:
        """Delete the file, when its content is kept elsewhere."""
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None


def _write(sink: io.FileIO, line: str) -> None:
    rest = line.encode("ascii")
    while rest:  # a disk that is nearly full takes a part
        rest = rest[sink.write(rest) :]


def _parse(line: str, file: Path) -> dict[str, Any]:
    try:
        return unsealed(line, file)
    except UserError:  # torn by the end of the run that wrote it, or damaged
        return {}


def _outcome(fields: Mapping[str, Any]) -> Outcome | None:
    kinds = {"path": str, "size": int, "mtime_ns": int, "values": dict | None}
    if not fields.keys() <= set(Outcome.__slots__) or not all(
        isinstance(fields.get(name), kind) for name, kind in kinds.items()
    ):
        return None
    return Outcome(**fields)
