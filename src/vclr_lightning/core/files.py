"""Files that are written whole or not at all, and text of any usual encoding."""

from __future__ import annotations

import mmap
import os
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vclr_lightning.core.errors import UserError, disk_trouble

_PIECE = 1 << 22  # bytes
_THREADS = 16
_MASK = os.umask(0)  # read once: it is the process's, and threads write files, too
os.umask(_MASK)


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write; it becomes ``file`` in one step when the block ends without an error.

    Whatever happens (kill, full disk), ``file`` holds the old content or the new one.

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
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as sink:
            temporary = sink.name
            yield sink.file
            sink.flush()
            os.fsync(sink.fileno())
        os.chmod(temporary, 0o666 & ~_MASK)  # the temporary file is its owner's alone
        os.replace(temporary, file)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        said = (error.strerror or str(error)) if isinstance(error, OSError) else disk_trouble(error)
        if said:
            raise UserError(f"cannot write {file}: {said}") from error
        raise


def checksum(*parts: bytes | memoryview) -> int:
    """Return a CRC of bytes, computed on all cores; how they are divided into parts matters.

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


def checksum_of(file: Path) -> int:
    """Return :func:`checksum` of the content of a file, which is mapped and not held."""
    with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return checksum(memoryview(view))
