"""Notice files that are no longer what they were when they were indexed."""

from __future__ import annotations

from vclr_lightning.data.manifest.manifest import Manifest
from vclr_lightning.data.manifest.shards import shard_place


def changed_files(manifest: Manifest) -> dict[str, str]:
    """Return ``missing``, ``size`` or ``time`` for each file that differs, by relative path.

    Of a shard, only whether it is there as far as the video goes.
    """
    found: dict[str, str] = {}
    sizes, times = manifest.column("size"), manifest.column("mtime_ns")
    for i in range(len(manifest)):
        path = manifest.relative_path(i)
        if path in found:
            continue
        place = shard_place(path) if manifest.info.shards else None
        try:
            now = (manifest.root / (path if place is None else place.shard)).stat()
        except OSError:
            found[path] = "missing"
            continue
        if place is not None:
            if now.st_size < place.start + place.size:
                found[path] = "size"
            continue
        if now.st_size != sizes[i]:
            found[path] = "size"
        elif now.st_mtime_ns != times[i]:
            found[path] = "time"
    return found
