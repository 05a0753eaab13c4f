"""What is known about each file: its size and time, and the result of the job on it."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import TracebackType
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import parse_with_checksum, with_checksum
from vclr_lightning.core.screen import progress_bar

logger = logging.getLogger(__name__)

_CHUNK = 512  # files for one thread


@dataclass(frozen=True, slots=True)
class FileResult:
    """A file's state and the result of a job on it; neither value nor reason before it.

    Attributes:
        path: relative to the root.
        size: bytes; -1 where there is no such file, or it is to be tried again.
        mtime_ns: time of its last change, nanoseconds.
        ctime_ns: see :class:`~vclr_lightning.data.jobs.rejects.Rejected`; -1 for a folder.
        values: what the job returned.
        reason: why it failed, otherwise.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = -1
    values: Mapping[str, Any] | None = None
    reason: str | None = None

    def unchanged(self, now: FileResult) -> bool:
        """Whether the file still has this size and time."""
        return (self.size, self.mtime_ns) == (now.size, now.mtime_ns)


def stat_files(
    root: Path, paths: Sequence[str], *, folders: bool, workers: int, show: bool
) -> list[FileResult]:
    """Return size and time of each file (or folder of frames), or the reason why it is unusable.

    Threads overlap the round trips of a network file system.
    """
    chunks = [paths[k : k + _CHUNK] for k in range(0, len(paths), _CHUNK)]
    results: list[FileResult] = []
    with (
        progress_bar("looking at files", len(paths), show=show) as update,
        ThreadPoolExecutor(4 * workers) as threads,
    ):
        for part in threads.map(
            lambda chunk: [_stat(root, path, folders) for path in chunk], chunks
        ):
            results.extend(part)
            update(len(results), "")
    return results


def _stat(root: Path, path: str, folder: bool) -> FileResult:
    try:
        path.encode()
        stat = os.stat(os.path.join(root, path))
    except UnicodeEncodeError:
        return FileResult(path, -1, -1, reason="its name is not valid UTF-8; rename it")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return FileResult(path, -1, -1, reason="no such file" if missing else str(error.strerror))
    if folder and not S_ISDIR(stat.st_mode):
        return FileResult(path, -1, -1, reason="is no folder of frames")
    if not folder and not S_ISREG(stat.st_mode):
        return FileResult(path, -1, -1, reason="is no file; folders of frames need their template")
    # Frames in a folder may be repaired without a trace in the folder itself.
    return FileResult(path, stat.st_size, stat.st_mtime_ns, -1 if folder else stat.st_ctime_ns)


class FileJournal:
    """A file of results, a line with a checksum for each, that survives a kill at any moment.

    A context manager that closes the file, which is created with the first result.

    Args:
        file: where to keep them.
        key: what results depend on besides the files; those of another key are not read.
    """

    def __init__(self, file: Path, key: Mapping[str, object]) -> None:
        self._file = file
        self._key = json.loads(json.dumps(key))
        self._sink: io.FileIO | None = None  # unbuffered

    def read(self) -> dict[str, FileResult]:
        """Return the results by path; none where the key differs or there is no journal."""
        try:
            lines = self._file.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return {}
        content = [_parsed(line, self._file) for line in lines if line]
        if not content or content[0] != self._key:
            return {}
        results = [result for fields in content[1:] if (result := _result(fields))]
        if damaged := len(content) - 1 - len(results):
            logger.info("left out %d lines of %s that are torn or damaged", damaged, self._file)
        return {result.path: result for result in results}

    def add(self, result: FileResult) -> None:
        """Append a result; it is in the file when this returns.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if self._sink is None:
                continued = bool(self.read())
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._sink = io.FileIO(self._file, "a" if continued else "w")
                head = "" if continued else with_checksum(json.dumps(self._key))
                _write(self._sink, head + "\n")  # the line break ends a torn line
            fields = {name: getattr(result, name) for name in FileResult.__slots__}
            _write(self._sink, with_checksum(json.dumps(fields)) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._file}: {error.strerror}") from error

    def remove(self) -> None:
        """Delete the file, when its content is kept elsewhere."""
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> FileJournal:
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


def _parsed(line: str, file: Path) -> dict[str, Any]:
    try:
        return parse_with_checksum(line, file)
    except UserError:  # torn when its run was killed, or damaged
        return {}


def _result(fields: Mapping[str, Any]) -> FileResult | None:
    kinds = {"path": str, "size": int, "mtime_ns": int, "values": dict | None}
    if not fields.keys() <= set(FileResult.__slots__) or not all(
        isinstance(fields.get(name), kind) for name, kind in kinds.items()
    ):
        return None
    return FileResult(**fields)
