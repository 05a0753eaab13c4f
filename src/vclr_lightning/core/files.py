"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vclr_lightning.core.errors import UserError


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
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # the temporary file is its owner's alone
        os.replace(temporary, file)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {file}: {error.strerror or error}") from error
        raise
