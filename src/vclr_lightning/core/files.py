"""Files that are written whole or not at all, and text of any usual encoding."""

from __future__ import annotations

import codecs
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


_MARKS = {  # the longer ones first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(file: Path) -> str:
    """Return what a text file says: UTF-8, UTF-16 or UTF-32 by its mark, or else Latin-1.

    Line ends are left as they are.

    Raises:
        UserError: the file cannot be read, or is no text.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = file.write_text("caf\u00e9", encoding="utf-16")
        >>> read_text(file)
        'caf\u00e9'
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1") if encoding == "utf-8" else "\0"
    if "\0" in text:
        raise UserError(f"{file} is no text file, or of an unknown encoding; save it as UTF-8")
    return text
