"""Files of W&B: which steps its offline runs really hold, and weights as artifacts."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ARTIFACTS = {"backbone": "{}.backbone.safetensors", "checkpoint": "{}.ckpt"}
"""Files of each kind of artifact, by alias."""

_HEADER = 7  # bytes, of the file and of each record in it
_BLOCK = 1 << 15  # a record's header is never split between two blocks
_LAST = (1, 4)  # kinds of records: whole ones, and the last of several parts


def last_written_step(folder: Path) -> int:
    """Return the last step of the history in all offline runs below a folder; -1 for none.

    W&B's process writes a row when the next one begins, and gathers some seconds of them; when the
    training is killed, it ends without writing these.

    Args:
        folder: W&B's own, ``wandb``.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    last = -1
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        try:
            for content in log_records(file.read_bytes()):
                record = Record()
                record.ParseFromString(content)
                if record.WhichOneof("record_type") == "history":
                    found = {
                        item.key or "/".join(item.nested_key): item for item in record.history.item
                    }
                    last = max(last, int(found["_step"].value_json))
        except Exception as error:  # of protobuf, of the disk, of another version's format
            what = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("%s cannot be read to its end (%s)", file, what)
    return last


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records of a file in LevelDB's log format, as far as it is intact.

    Each record has a header of a checksum, a length and a kind.

    Example:
        >>> head = struct.pack("<IHB", 0, 3, 1)
        >>> list(log_records(b":W&B..." + head + b"one" + head + b"tw"))
        [b'one']
    """
    at, parts = _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if left < _HEADER or kind == 0:
            at += left
            continue
        part = data[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if len(part) < length:
            return
        parts += part
        if kind in _LAST:
            yield parts
            parts = b""


def upload_weights(run: Any, folder: Path, *, kind: str) -> None:
    """Log the weights in a run's folder as artifacts with the aliases ``last`` and ``best``.

    Args:
        run: the ``wandb.Run``.
        folder: of the run.
        kind: one of :data:`ARTIFACTS`.
    """
    import wandb

    for alias in ("last", "best"):
        file = folder / ARTIFACTS[kind].format(alias)
        if file.is_file():
            artifact = wandb.Artifact(f"{kind}-{run.id}", type="model")
            artifact.add_file(str(file))
            if (beside := file.with_name("config.yaml")).is_file():
                artifact.add_file(str(beside))  # names the network
            run.log_artifact(artifact, aliases=[alias])
