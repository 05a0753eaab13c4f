"""One process at a time: locks that go with the process that holds them, however it ends.

They are POSIX record locks, which forked workers do not inherit and which network file systems
know, between machines as well.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import IO

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers

RUN_LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(file: Path, *, show: bool = True) -> Iterator[None]:
    """Wait until no other process writes ``file``, and keep others from it.

    Raises:
        UserError: the folder cannot be written to.
    """
    with _taken(file.with_suffix(".lock"), wait=quote(str(file)) if show else "") as holder:
        assert holder is None
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder.

    Raises:
        UserError: another process uses it, which is named; or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with in_use(folder):
        ...     (folder / RUN_LOCK).read_text().split()[0]
        'process'
        >>> list(folder.iterdir())
        []
    """
    with _taken(folder / RUN_LOCK) as holder:
        if holder is not None:
            raise UserError(
                f"{folder} is in use by {holder or 'another process'}; wait for it, stop it, or "
                "give another name=..."
            )
        yield


@contextmanager
def _taken(lock: Path, *, wait: str | None = None) -> Iterator[str | None]:
    """Take a lock and yield ``None``; or yield who holds it, where it is not to be waited for."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            sink = lock.open("a+b", buffering=0)
        except OSError as error:
            raise _unwritable(lock, error) from error
        with sink:
            if not _take(sink, block=False):
                if wait is None:
                    sink.seek(0)
                    yield sink.read(200).decode(errors="replace").strip()
                    return
                if wait:
                    print(f"waiting for another process that writes {wait}", file=sys.stderr)
                    wait = ""
                _take(sink, block=True)
            if not _is_at(lock, sink.fileno()):
                continue  # the process that held it took the file away: begin again
            since = datetime.now().isoformat(" ", "seconds")
            holder = f"process {os.getpid()} on {socket.gethostname()}, since {since}"
            try:
                sink.truncate(0)
                sink.write(holder.encode())
            except OSError as error:
                lock.unlink(missing_ok=True)
                raise _unwritable(lock, error) from error
            clear_leftovers(lock.parent)
            try:
                yield None
            finally:
                lock.unlink(missing_ok=True)
            return


def _unwritable(lock: Path, error: OSError) -> UserError:
    return UserError(f"cannot write into {lock.parent}: {error.strerror}")


def _take(sink: IO[bytes], *, block: bool) -> bool:
    """Lock a file; true where the file system has no locks, which keeps nobody out."""
    import fcntl

    try:
        fcntl.lockf(sink, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except OSError as error:
        if not block and error.errno in _HELD:
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
