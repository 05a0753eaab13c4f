"""Write a manifest, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.manifest.schema import METADATA_KEY, Info, Row, arrow_schema, fingerprint

if TYPE_CHECKING:
    import pyarrow as pa


def write_manifest(file: Path, rows: Iterable[Row], info: Info) -> Path:
    """Write ``rows``, sorted by split and path, and ``info`` to the Arrow file ``file``.

    The file appears, or replaces an older one, only when it is complete.

    Returns:
        ``file``.

    Raises:
        UserError: there are no rows, a path comes twice, a label has no class, or the file
            cannot be written.
    """
    import pyarrow as pa

    ordered = sorted(rows, key=lambda row: (row.split, row.path))
    _check(ordered, info)
    info = replace(info, fingerprint=fingerprint(ordered, info.classes))
    schema = arrow_schema().with_metadata({METADATA_KEY: info.to_json(file)})
    given = {"name": "video_name", "group": "group_name"}
    arrays = [
        _array([getattr(row, given.get(c.name, c.name)) for row in ordered], c.type) for c in schema
    ]
    # One uncompressed record batch: a column is one buffer, which a reader maps as it stands.
    with replacing(file) as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return file


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    words = sorted({str(value) for value in values if value is not None})
    codes = {word: code for code, word in enumerate(words)}
    indices = [None if value is None else codes[str(value)] for value in values]
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, kind.index_type), pa.array(words, kind.value_type)
    )


def _check(rows: Sequence[Row], info: Info) -> None:
    if not rows:
        raise UserError("there are no videos to write into a manifest")
    twice = len(rows) - len({row.path for row in rows})
    if twice:
        raise UserError(f"{twice} path(s) come more than once in the manifest")
    for row in rows:
        if not -1 <= row.label < len(info.classes):
            raise UserError(
                f"{row.path} has label {row.label}, but there are {len(info.classes)} classes"
            )
