"""Files of safetensors, with a checksum in those that this package writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum, mapped_bytes
from vclr_lightning.core.foreign import CHANGED, CUT, what_it_is
from vclr_lightning.core.reading import parse_json

CHECKSUM = "crc32"  # in the metadata of an export
_HEADER = 16 << 20  # bytes; 100,000 tensors need 10 MB


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as one of safetensors, whatever it is called."""
    if not path.is_file():  # a folder; or a pipe, which would be waited for
        return False
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" if len(head) < 9 else head[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, and what its metadata says.

    Raises:
        UserError: it is something else, or damaged.
    """
    if other := what_it_is(path):
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
        cut = "ncomplete" in str(error)  # bytes that the header promises
        raise UserError(f"{path} {CUT if cut else CHANGED}") from error
    digest = metadata.pop(CHECKSUM, None)
    if digest not in (None, exported_digest(header, mapped_bytes(path)[8 + length :])):
        raise UserError(f"{path} {CHANGED}")
    return tensors, metadata


def exported_digest(header: Mapping[str, Any], numbers: memoryview) -> str:
    """Return the checksum of an export's header and numbers: the format has none of its own."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != CHECKSUM}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    return f"{checksum(text.encode(), numbers):08x}"
