"""Notice files that are no longer what they were when they were indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vclr_lightning.data.manifest.manifest import Manifest


def changed_files(manifest: Manifest) -> dict[str, str]:
    """Return ``missing``, ``size`` or ``time`` for each file that differs, by relative path."""
    found: dict[str, str] = {}
    sizes, times = manifest.column("size"), manifest.column("mtime_ns")
    for i in range(len(manifest)):
        path = manifest.relative_path(i)
        if path in found:
            continue
        try:
            now = (manifest.root / path).stat()
        except OSError:
            found[path] = "missing"
            continue
        if now.st_size != sizes[i]:
            found[path] = "size"
        elif now.st_mtime_ns != times[i]:
            found[path] = "time"
    return found
