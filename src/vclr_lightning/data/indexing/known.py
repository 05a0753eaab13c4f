"""What an earlier, finished run knows about files."""

from __future__ import annotations

import logging
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.journal import Outcome
from vclr_lightning.data.indexing.rejects import read_rejects, rejects_file
from vclr_lightning.data.manifest.arrow import open_arrow
from vclr_lightning.data.manifest.schema import SCHEMA_VERSION

logger = logging.getLogger(__name__)

PROBED = (
    "duration",
    "num_frames",
    "exact",
    "fps",
    "width",
    "height",
    "codec",
    "keyframe_interval",
    "damaged",
)


def known_outcomes(
    file: Path, *, root: Path, frames: str | None, decode: bool, max_damaged: float
) -> dict[str, Outcome]:
    """Return the outcomes behind a manifest and its rejected files, by path.

    Nothing is known where there is no such manifest, or it was made of another folder, in another
    way or by another version.
    """
    try:
        columns, info = open_arrow(file)
    except UserError as error:
        if file.exists():
            logger.warning("%s; the videos are indexed anew", error)
        return {}
    made = info.root.absolute(), info.frames, info.decoded, info.max_damaged, info.schema
    if made != (root, frames, decode, max_damaged, SCHEMA_VERSION):
        return {}
    rejected = (r for r in read_rejects(rejects_file(file)) if r.size >= 0)
    known = {
        r.path: Outcome(r.path, r.size, r.mtime_ns, r.ctime_ns, reason=r.reason) for r in rejected
    }
    lists = (columns[name].to_pylist() for name in ("path", "size", "mtime_ns", *PROBED))
    for path, size, mtime_ns, *values in zip(*lists, strict=True):
        known[path] = Outcome(path, size, mtime_ns, values=dict(zip(PROBED, values, strict=True)))
    return known
