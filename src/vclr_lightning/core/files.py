"""Files that are written whole or not at all, checksums, and mapped content."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from vclr_lightning.core.errors import UserError, disk_failure

HAS_FCNTL = find_spec("fcntl") is not None
"""False on Windows, which can neither remove nor replace a file that is open."""

_PIECE = 1 << 22  # bytes
_THREADS = 16
_MASK = os.umask(0)  # read once: it belongs to the process, and threads write files, too
os.umask(_MASK)

# The second and third are names that earlier versions used.
_LEFTOVER = re.compile(
    r"\.(.+\.[a-z0-9_]{8}\.part|(last|best)\..+\.[a-z0-9_]{8}|.+\.tar\.json\.[a-z0-9_]{8})"
)


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write; it becomes ``file`` in one step when the block ends without an error.

    Whatever happens (kill, full disk), ``file`` holds the old content or the new one. What a kill
    leaves beside it is removed by :func:`clear_leftovers`.

    Raises:
        UserError: the folder cannot be written to, or is full.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(file) as sink:
        ...     _ = sink.write(b"whole")
        >>> file.read_bytes()
        b'whole'
    """
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(file) as sink:
            temporary = sink.name
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
            os.chmod(temporary, 0o666 & ~_MASK)  # mkstemp makes it readable for its owner only
            if not HAS_FCNTL:
                sink.close()
            os.replace(temporary, file)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        plain = (error.strerror or str(error)) if isinstance(error, OSError) else ""
        if reason := plain or disk_failure(error):
            raise UserError(f"cannot write {file}: {reason}") from error
        raise


def clear_leftovers(folder: Path) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed.

    Files that a process is still writing, here or on another machine, stay; on Windows all do.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".last.ckpt.k2_x81ab.part").touch()
        >>> with replacing(folder / "a.txt"):
        ...     clear_leftovers(folder)
        ...     [file.suffix for file in folder.iterdir()]
        ['.part']
    """
    with suppress(OSError):  # no such folder, or not ours to clean up
        for entry in os.scandir(folder):
            if not _LEFTOVER.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError), open(entry.path, "r+b") as file:
                if _lock(file):
                    os.unlink(entry.path)


def _temporary(file: Path) -> IO[bytes]:
    """Create a file beside ``file``, locked for as long as it is in use."""
    while True:
        descriptor, name = tempfile.mkstemp(
            dir=file.parent, prefix=f".{file.name}.", suffix=".part"
        )
        sink = open(name, "w+b", opener=lambda *_, found=descriptor: found)  # noqa: SIM115
        _lock(sink)
        if os.path.exists(name):  # not yet removed as a leftover by another process
            return sink
        sink.close()


def _lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open; false where it is locked, or cannot be."""
    if not HAS_FCNTL:
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def checksum(*parts: bytes | memoryview) -> int:
    """Return a CRC of bytes, computed on all cores; it depends on the division into parts.

    Example:
        >>> checksum(b"whole") == checksum(b"whola")
        False
    """
    views = [memoryview(part).cast("B") for part in parts]
    pieces = [v[k : k + _PIECE] for v in views for k in range(0, len(v), _PIECE)]
    if len(pieces) == 1:
        return zlib.crc32(pieces[0])
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        sums = threads.map(zlib.crc32, pieces)
        return zlib.crc32(b"".join(value.to_bytes(4, "little") for value in sums))


def mapped_bytes(file: Path) -> memoryview:
    """Return the content of a file, memory-mapped."""
    with file.open("rb") as source:
        return memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
