"""Map a manifest's file into memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.arrays import map_arrow
from vclr_lightning.core.errors import UserError
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


def open_arrow(file: Path, *, verify: bool = True) -> tuple[dict[str, pa.Array], Info]:
    """Return the columns of a manifest, backed by the mapped file, and what it says of itself.

    Columns that an older form lacks are null.

    Args:
        file: of the manifest.
        verify: look at the content as well, which a data worker leaves to the process it is of.

    Raises:
        UserError: there is no such file, it is damaged, or it is no manifest of this version or an
            older one.
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
        if field.name not in columns:  # an older form lacks it
            columns[field.name] = pa.nulls(len(batch), field.type)
    info = Info.from_json(header, file)
    if verify and (wrong := _wrong(columns, info, sealed)):
        raise UserError(f"{file} is damaged ({wrong}): make the manifest anew with `vclr index`")
    return columns, info


def is_arrow(file: Path) -> bool:
    """Return whether a file begins as a manifest does, a damaged one or of another version too."""
    with suppress(OSError), file.open("rb") as source:
        return source.read(len(_MAGIC)) == _MAGIC
    return False


def _wrong(columns: Mapping[str, pa.Array], info: Info, sealed: bool) -> str:
    """Say what in the columns no writer of this package has written; nothing where all is well."""
    import pyarrow.compute as pc

    # Others would read or write what is named there.
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
    # Times may have been whole numbers when they were hashed, which a column does not tell.
    if sealed or windows.any() or len(spans):
        return ""
    names = ("path", "name", "group", "split", "label")
    lists = zip(*(columns[name].to_pylist() for name in names), strict=True)
    rows = (Row(**dict(zip(names, values, strict=True))) for values in lists)
    same = fingerprint(rows, info.classes) == info.fingerprint
    return "" if same else "its rows are not those that were written"
