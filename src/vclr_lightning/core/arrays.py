"""Files of arrays: NumPy, safetensors and Arrow, whose headers are checked before they are used."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum, mapped_bytes
from vclr_lightning.core.foreign import CHANGED, CUT, foreign_format
from vclr_lightning.core.reading import parse_json

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor

CHECKSUM = "crc32"  # key in the metadata of an exported safetensors file
_HEADER = 16 << 20  # bytes of a safetensors header; 100,000 tensors need 10 MB
# In the metadata of an Arrow schema, which the file holds twice: before its data and in its footer.
_SEAL, _OPEN = b"vclr_crc32:", b"00000000"


def map_array(file: Path) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, memory-mapped copy-on-write.

    Raises:
        UserError: it cannot be read, its size differs from its header, or it is not numeric.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([{}]), allow_pickle=True)
        >>> map_array(file)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: .../a.npy is no .npy file of numbers (it holds object)
    """
    try:
        with file.open("rb") as source:
            version = np.lib.format.read_magic(source)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(source)
            offset = source.tell()
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype.name}")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != file.stat().st_size - offset:
            raise ValueError(f"its size does not match its shape {shape}")
        array: NDArray[Any] = np.load(file, mmap_mode="c" if size else None)
        return array
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is no .npy file of numbers ({reason})") from error


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like safetensors, whatever its name."""
    if not path.is_file():  # a folder; or a pipe, whose reader would wait
        return False
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" if len(head) < 9 else head[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file.

    Raises:
        UserError: it is another kind of file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if other := foreign_format(path):
        raise UserError(f"{path} {other}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_HEADER, path.stat().st_size):
            raise UserError(f"{path} {CUT}")
        header = parse_json(file.read(length), f"the header of {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        cut = "ncomplete" in str(error)  # fewer bytes than the header promises
        raise UserError(f"{path} {CUT if cut else CHANGED}") from error
    digest = metadata.pop(CHECKSUM, None)
    if digest is not None and digest != exported_digest(header, mapped_bytes(path)[8 + length :]):
        raise UserError(f"{path} {CHANGED}")
    return tensors, metadata


def exported_digest(header: Mapping[str, Any], numbers: memoryview) -> str:
    """Return the checksum of a safetensors header and its data; the format itself has none."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != CHECKSUM}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    return f"{checksum(text.encode(), numbers):08x}"


def write_arrow(sink: IO[bytes], batch: pa.RecordBatch) -> None:
    """Write one record batch with a checksum, uncompressed, so that columns can be mapped."""
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
    """Return the memory-mapped batch of an Arrow file, and whether the file has a checksum.

    With ``verify``, the checksum, if any, is compared and every value validated: a damaged offset
    would crash the process later.

    Raises:
        UserError: it cannot be read, is no ``title``, damaged, or does not hold exactly one batch.
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is no {title}, or a damaged one ({reason})") from error
    return batch, sealed


def _is_sealed(file: Path) -> bool:
    """Whether a file has a checksum; ``ValueError`` where it does not match."""
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
    """Return the checksum of everything but its own two copies, in eight hexadecimal digits."""
    width = len(_SEAL + _OPEN)
    parts = content[:first], content[first + width : last], content[last + width :]
    return b"%08x" % checksum(*parts)
