"""A process that re-encodes one file after another; see
:mod:`vclr_lightning.data.indexing.worker`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.worker import serve
from vclr_lightning.data.prepare.names import prepared_name
from vclr_lightning.data.prepare.recipe import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.protocols import VideoError


def encode(
    path: Path, *, root: str, out: str, clashing: Collection[str], recipe: Mapping[str, int]
) -> dict[str, Any]:
    """Re-encode one file.

    Args:
        path: of the source.
        root: folder of the sources.
        out: folder of the result.
        clashing: see :func:`~vclr_lightning.data.prepare.names.prepared_name`.
        recipe: values of a :class:`Recipe`.

    Returns:
        What is found in the new file.

    Raises:
        VideoError: there is none.
        UserError: there can be no further one either.
    """
    name = prepared_name(path.relative_to(root).as_posix(), clashing)
    file, within = Path(out) / name, Path(out).resolve()
    if path.resolve().is_relative_to(within):
        raise VideoError(f"it is a link to a file in {out}")
    if not file.parent.resolve().is_relative_to(within):
        raise UserError(f"{file.parent} is a link that leads out of {out}; remove it")
    found = asdict(transcode(path, file, Recipe(**recipe)))
    stat = file.stat()
    return {**found, "file": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def main() -> None:
    """Re-encode until the input ends."""
    serve(encode)
