"""Arrow files of one record batch, with a checksum, mapped into memory."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum

if TYPE_CHECKING:
    import pyarrow as pa

# Stands in the schema's metadata, which a file holds twice: before its data and in its footer.
_SEAL, _OPEN = b"vclr_crc32:", b"00000000"


def write_arrow(sink: IO[bytes], batch: pa.RecordBatch) -> None:
    """Write a record batch, uncompressed, so that a column is one stretch of the file."""
    import pyarrow as pa

    seal = {b"vclr_checksum": _SEAL + _OPEN}
    batch = batch.replace_schema_metadata({**(batch.schema.metadata or {}), **seal})
    output = pa.BufferOutputStream()
    with pa.ipc.new_file(output, batch.schema) as writer:
        writer.write_batch(batch)
    content = bytearray(output.getvalue())
    first, last = content.find(_SEAL), content.rfind(_SEAL)
    digest = _digest(memoryview(content), first, last)
    for place in (first, last):
        content[place : place + len(_SEAL + digest)] = _SEAL + digest
    sink.write(content)


def map_arrow(file: Path, *, title: str, verify: bool = True) -> tuple[pa.RecordBatch, bool]:
    """Return the batch of an Arrow file, backed by the mapped file, and whether it has a checksum.

    Args:
        file: written by :func:`write_arrow`, or by another program.
        title: what the file should be, for the message.
        verify: compare the checksum, where there is one, and look at every value: a damaged offset
            would crash the process where it is used.

    Raises:
        UserError: it cannot be read, is damaged, or does not hold one batch.
    """
    import pyarrow as pa

    try:
        sealed = _is_sealed(file) if verify else True
        with pa.memory_map(str(file)) as source:
            reader = pa.ipc.open_file(source)
            if reader.num_record_batches != 1:
                raise ValueError(f"{reader.num_record_batches} record batches instead of one")
            batch = reader.get_batch(0)
        if verify:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is no {title}, or a damaged one ({said})") from error
    return batch, sealed


def _is_sealed(file: Path) -> bool:
    """Whether a file has a checksum.

    Raises:
        ValueError: it is another one's.
    """
    with file.open("rb") as source:
        content = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    first, last = content.find(_SEAL), content.rfind(_SEAL)
    if first < 0:
        return False
    digest = _digest(memoryview(content), first, last)
    for place in (first, last):
        if content[place : place + len(_SEAL + digest)] != _SEAL + digest:
            raise ValueError("its content is not what was written")
    return True


def _digest(content: memoryview, first: int, last: int) -> bytes:
    """Return the checksum of everything but the two copies of it, in eight hexadecimal digits."""
    width = len(_SEAL + _OPEN)
    parts = content[:first], content[first + width : last], content[last + width :]
    return b"%08x" % checksum(*parts)
