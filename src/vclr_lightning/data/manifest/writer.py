"""Write a manifest, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.arrays import write_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.manifest.schema import (
    METADATA_KEY,
    OUTSIDE,
    Info,
    Row,
    arrow_schema,
    fingerprint,
)

if TYPE_CHECKING:
    import pyarrow as pa


def write_manifest(file: Path, rows: Iterable[Row], info: Info) -> Path:
    """Write ``rows``, sorted by split, path and window, and ``info`` to the Arrow file ``file``.

    The file appears, or replaces an older one, only when it is complete.

    Returns:
        ``file``.

    Raises:
        UserError: there are no rows, a path leads out of the root, a video or a clip of one comes
            twice, a label has no class, a window or span is none, or the file cannot be written.
    """
    import pyarrow as pa

    ordered = sorted(rows, key=lambda row: row.order)
    _check(ordered, info)
    info = replace(info, fingerprint=fingerprint(ordered, info.classes))
    schema = arrow_schema().with_metadata({METADATA_KEY: info.to_json(file)})
    given = {"name": "video_name", "group": "group_name"}
    arrays = [
        _array([getattr(row, given.get(c.name, c.name)) for row in ordered], c.type) for c in schema
    ]
    with replacing(file) as sink:
        write_arrow(sink, pa.record_batch(arrays, schema=schema))
    return file


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_list(kind):
        names = [field.name for field in kind.value_type]
        spans = [[dict(zip(names, s, strict=True)) for s in v] or None for v in values]  # type: ignore[attr-defined]
        return pa.array(spans, kind)
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
    whole = {row.path for row in rows if row.start is None}
    for row in rows:
        if re.search(OUTSIDE, row.path):
            raise UserError(
                f"the path {row.path!r} does not stay below the root of the manifest; give paths "
                "relative to it, without .."
            )
        for label in (row.label, *(span.label for span in row.spans)):
            if not -1 <= label < len(info.classes):
                raise UserError(
                    f"{row.path} has label {label}, but there are {len(info.classes)} classes"
                )
        _check_window(row)
        if row.start is not None and row.path in whole:
            raise UserError(f"{row.path} is in the manifest both whole and as a clip")
    twice = len(rows) - len({row.place for row in rows})
    if twice:
        raise UserError(f"{twice} path(s) come more than once in the manifest")


def _check_window(row: Row) -> None:
    if row.start is None and row.end is None:
        return
    if row.start is None or row.end is None or not 0 <= row.start < row.end:
        raise UserError(
            f"{row.path} has the window {row.start} to {row.end}; give both ends, the first at "
            "least 0 and below the second, or neither for the whole file"
        )
