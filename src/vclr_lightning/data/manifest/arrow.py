"""Map a manifest's file into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest.schema import METADATA_KEY, SCHEMA_VERSION, Info, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa


def open_arrow(file: Path) -> tuple[dict[str, pa.Array], Info]:
    """Return the columns of a manifest, backed by the mapped file, and what it says of itself.

    Columns that an older form lacks are null.

    Raises:
        UserError: there is no such file, or it is no manifest of this version or an older one.
    """
    import pyarrow as pa

    if (inside := file / "manifest.arrow").is_file():
        raise UserError(f"{file} is a folder; give the manifest in it, {inside}")
    if not file.is_file():
        raise UserError(f"there is no manifest {file}; make one with `vclr index`")
    try:
        with pa.memory_map(str(file)) as source:
            reader = pa.ipc.open_file(source)
            schema, batches = reader.schema, reader.num_record_batches
            # The writer makes one batch, whose columns are the mapped bytes as they stand.
            arrays = reader.get_batch(0).columns if batches == 1 else []
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} is no manifest: make one with `vclr index`") from error
    content = (schema.metadata or {}).get(METADATA_KEY)
    if content is None or not arrays:
        raise UserError(f"{file} is an Arrow file but no manifest: make one with `vclr index`")
    header = json.loads(content)
    version = header["schema"]
    if version not in range(1, SCHEMA_VERSION + 1) or not schema.equals(arrow_schema(version)):
        raise UserError(
            f"{file} was written by another version of this package "
            f"(form {version}, this one reads {SCHEMA_VERSION}): run `vclr index` again"
        )
    columns = dict(zip(schema.names, arrays, strict=True))
    for field in arrow_schema():
        if field.name not in columns:  # an older form lacks it
            columns[field.name] = pa.nulls(len(arrays[0]), field.type)
    return columns, Info.from_json(header, file)
