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


def answer(
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
        What is found in the new file; or the reason why there is none; or, as ``fatal``, why there
        can be no further one either.
    """
    name = prepared_name(path.relative_to(root).as_posix(), clashing)
    file, within = Path(out) / name, Path(out).resolve()
    if path.resolve().is_relative_to(within):
        return {"reason": f"it is a link to a file in {out}"}
    if not file.parent.resolve().is_relative_to(within):
        return {"fatal": f"{file.parent} is a link that leads out of {out}; remove it"}
    try:
        found = asdict(transcode(path, file, Recipe(**recipe)))
        stat = file.stat()
    except VideoError as error:
        return {"reason": " ".join(str(error).split())}
    except UserError as error:
        return {"fatal": str(error)}
    except Exception as error:  # whatever a library raises, the file cannot be used
        return {"reason": f"{type(error).__name__}: {error}"}
    made = {"file": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return {"values": {**found, **made}}


def main() -> None:
    """Re-encode until the input ends."""
    serve(answer)
