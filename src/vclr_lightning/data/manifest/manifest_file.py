"""The Arrow file of a manifest: written whole or not at all, and mapped into memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.arrays import map_arrow, write_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.reading import parse_json
from vclr_lightning.data.manifest.schema import (
    METADATA_KEY,
    OUTSIDE,
    SCHEMA_VERSION,
    Info,
    Row,
    arrow_schema,
    fingerprint,
)

if TYPE_CHECKING:
    import pyarrow as pa

_MAGIC = b"ARROW1"


def write_manifest(file: Path, rows: Iterable[Row], info: Info) -> Path:
    """Write ``rows``, sorted by split, path and window, and ``info`` to the Arrow file ``file``.

    The file appears, or replaces an older one, only when it is complete.

    Returns:
        ``file``.

    Raises:
        UserError: there are no rows, a path leads out of the root, a video or clip occurs twice,
            a label has no class, a window is invalid, or the file cannot be written.
    """
    import pyarrow as pa

    ordered = sorted(rows, key=lambda row: row.order)
    _check_rows(ordered, info)
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


def _check_rows(rows: Sequence[Row], info: Info) -> None:
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
        whole_file = row.start is None and row.end is None
        if not whole_file and not (
            row.start is not None and row.end is not None and 0 <= row.start < row.end
        ):
            raise UserError(
                f"{row.path} has the window {row.start} to {row.end}; give both ends, the first at "
                "least 0 and below the second, or neither for the whole file"
            )
        if row.start is not None and row.path in whole:
            raise UserError(f"{row.path} is in the manifest both whole and as a clip")
    twice = len(rows) - len({row.place for row in rows})
    if twice:
        raise UserError(f"{twice} path(s) come more than once in the manifest")


def read_manifest(file: Path, *, verify: bool = True) -> tuple[dict[str, pa.Array], Info]:
    """Return the columns of a manifest, backed by the mapped file, and its header.

    Columns that an earlier version did not write are null.

    Args:
        file: of the manifest.
        verify: check the content, which data workers leave to the process that started them.

    Raises:
        UserError: there is no such file, it is damaged, or it is no manifest of this version or an
            earlier one.
    """
    import pyarrow as pa

    if (inside := file / "manifest.arrow").is_file():
        raise UserError(f"{file} is a folder; give the manifest in it, {inside}")
    if not file.is_file():
        raise UserError(f"there is no manifest {file}; make one with `vclr index`")
    try:
        batch, sealed = map_arrow(file, title="manifest", verify=verify)
    except UserError as error:
        raise UserError(f"{error}: make one with `vclr index`") from error
    content = (batch.schema.metadata or {}).get(METADATA_KEY)
    if content is None:
        raise UserError(f"{file} is an Arrow file but no manifest: make one with `vclr index`")
    header = parse_json(content, f"the header of {file}")
    version = header.get("schema") if isinstance(header, dict) else None
    if (
        not isinstance(version, int)
        or not 1 <= version <= SCHEMA_VERSION
        or not batch.schema.equals(arrow_schema(version))
    ):
        raise UserError(
            f"{file} was written by another version of this package "
            f"(form {version}, this one reads {SCHEMA_VERSION}): run `vclr index` again"
        )
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for field in arrow_schema():
        if field.name not in columns:  # added by a later version
            columns[field.name] = pa.nulls(len(batch), field.type)
    info = Info.from_json(header, file)
    if verify and (wrong := _never_written(columns, info, sealed)):
        raise UserError(f"{file} is damaged ({wrong}): make the manifest again with `vclr index`")
    return columns, info


def is_manifest(file: Path) -> bool:
    """Return whether a file begins like a manifest, possibly damaged or of another version."""
    with suppress(OSError), file.open("rb") as source:
        return source.read(len(_MAGIC)) == _MAGIC
    return False


def _never_written(columns: Mapping[str, pa.Array], info: Info, sealed: bool) -> str:
    """Return what in the columns this package never writes; nothing if all is well."""
    import pyarrow.compute as pc

    # Whoever opens such a path would read or write outside.
    outside = pc.index(pc.match_substring_regex(columns["path"], OUTSIDE), True).as_py()
    if outside >= 0:
        name = columns["path"][outside].as_py()
        return f"it names {name!r}, which is not below the folder of its videos"
    for field in arrow_schema():
        if not field.nullable and columns[field.name].null_count:
            return f"a row has no {field.name}"
    spans = columns["spans"].flatten()
    if any(child.null_count for child in [spans, *spans.flatten()]):
        return "a span has no time or label"
    for labels in (columns["label"], spans.field("label")):
        values = labels.to_numpy(zero_copy_only=False)
        if len(values) and not -1 <= values.min() <= values.max() < len(info.classes):
            return f"a label is none of its {len(info.classes)} classes"
    start, end = (columns[name].to_numpy(zero_copy_only=False) for name in ("start", "end"))
    windows = columns["start"].is_valid().to_numpy(zero_copy_only=False)
    whole = columns["end"].is_null().to_numpy(zero_copy_only=False)
    if (windows == whole).any() or not np.all((start >= 0) & (start < end) | ~windows):
        return "a clip does not begin before it ends"
    # The hash of a time that was an integer differs, which a column of floats cannot reproduce.
    if sealed or windows.any() or len(spans):
        return ""
    names = ("path", "name", "group", "split", "label")
    lists = zip(*(columns[name].to_pylist() for name in names), strict=True)
    rows = (Row(**dict(zip(names, values, strict=True))) for values in lists)
    same = fingerprint(rows, info.classes) == info.fingerprint
    return "" if same else "its rows are not those that were written"
