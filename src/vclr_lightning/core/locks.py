"""Locks that end with the process that holds them, however it ends.

POSIX record locks: forked workers never hold them, and network file systems support them between
machines. filelock serves where there are none (Windows); elsewhere its locks would be inherited by
forked workers, it polls, and on file systems without flock it leaves marker files that outlive a
killed process.
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
from vclr_lightning.core.files import HAS_FCNTL, clear_leftovers

RUN_LOCK = ".lock"


@contextmanager
def locked(file: Path, *, show: bool = True) -> Iterator[None]:
    """Wait until no other process writes ``file``, and lock it within the block."""
    hold = _hold if HAS_FCNTL else _hold_by_filelock
    with hold(file.with_suffix(".lock"), wait=True, waiting_for=quote(str(file)) if show else ""):
        yield


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder within the block.

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
    hold = _hold if HAS_FCNTL else _hold_by_filelock
    with hold(folder / RUN_LOCK, wait=False):
        yield


def user_of(folder: Path) -> str:
    """Return the process that uses a folder now, empty where none does; changes nothing.

    Example:
        >>> user_of(Path("no/such/folder"))
        ''
    """
    lock = folder / RUN_LOCK
    try:
        if not HAS_FCNTL:
            return lock.with_suffix(".holder").read_text()
        import fcntl

        with lock.open("rb") as source:
            try:
                fcntl.lockf(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return source.read(200).decode(errors="replace") or "another process"
    except OSError:  # there is no lock, or it cannot be read
        pass
    return ""


@contextmanager
def _hold(lock: Path, *, wait: bool, waiting_for: str = "") -> Iterator[None]:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            sink = lock.open("a+b", buffering=0)
        except OSError as error:
            raise _unwritable(lock, error) from error
        with sink:
            if not _take(sink, block=False):
                if not wait:
                    sink.seek(0)
                    holder = sink.read(200).decode(errors="replace").strip()
                    raise _in_use(lock, holder)
                _say(waiting_for)
                waiting_for = ""
                _take(sink, block=True)
            if not _is_at(lock, sink.fileno()):
                continue  # its last holder has removed the file: begin again
            try:
                sink.truncate(0)
                sink.write(_this_process().encode())
            except OSError as error:
                lock.unlink(missing_ok=True)
                raise _unwritable(lock, error) from error
            clear_leftovers(lock.parent)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def _hold_by_filelock(lock: Path, *, wait: bool, waiting_for: str = "") -> Iterator[None]:
    from filelock import FileLock, Timeout

    holder = lock.with_suffix(".holder")  # a locked file cannot be read on Windows
    held = FileLock(lock, thread_local=False)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise _in_use(lock, holder.read_text() if holder.exists() else "") from None
            _say(waiting_for)
            held.acquire()
        holder.write_text(_this_process())
    except OSError as error:
        held.release()
        raise _unwritable(lock, error) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _this_process() -> str:
    since = datetime.now().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}"


def _say(waiting_for: str) -> None:
    if waiting_for:
        print(f"waiting for another process that writes {waiting_for}", file=sys.stderr)


def _in_use(lock: Path, holder: str) -> UserError:
    return UserError(
        f"{lock.parent} is in use by {holder or 'another process'}; wait for it, stop it, or give "
        "another name=..."
    )


def _unwritable(lock: Path, error: OSError) -> UserError:
    return UserError(f"cannot write into {lock.parent}: {error.strerror}")


def _take(sink: IO[bytes], *, block: bool) -> bool:
    """Lock a file; true as well where the file system has no locks, which keeps nobody out."""
    import fcntl

    try:
        fcntl.lockf(sink, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except OSError as error:
        if not block and error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
