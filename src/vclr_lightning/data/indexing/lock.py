"""One run at a time writes a manifest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vclr_lightning.core.errors import UserError


@contextmanager
def locked(file: Path, *, show: bool = True) -> Iterator[None]:
    """Wait until no other process indexes into ``file``; a process that dies lets go.

    Raises:
        UserError: the folder cannot be written to.
    """
    import fcntl

    lock = file.with_suffix(".lock")
    told = not show
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            sink = lock.open("a")
        except OSError as error:
            raise UserError(f"cannot write into {lock.parent}: {error.strerror}") from error
        with sink:
            try:
                fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    print(f"waiting for another process that writes {file}", file=sys.stderr)
                told = True
                fcntl.flock(sink, fcntl.LOCK_EX)
            if not _is_at(lock, sink.fileno()):
                continue  # the process we waited for took the file away: begin again
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
