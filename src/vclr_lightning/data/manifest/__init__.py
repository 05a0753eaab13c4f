"""The manifest: one row per video or clip, in a file that is mapped into memory, never copied.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = [Row(path="run/a.mp4", label=0), Row(path="walk/b.mp4", label=1, split="val")]
    >>> file = write_manifest(folder / "m.arrow", rows, Info(root=folder, classes=("run", "walk")))
    >>> manifest = Manifest.load(file)
    >>> len(manifest), manifest.splits, manifest.split("val").name(0)
    (2, ('train', 'val'), 'b')
"""

from vclr_lightning.data.manifest.manifest import Manifest
from vclr_lightning.data.manifest.manifest_file import write_manifest
from vclr_lightning.data.manifest.schema import Info, Row, Span
from vclr_lightning.data.manifest.summary import Summary, changed_files, summarise

__all__ = [
    "Info",
    "Manifest",
    "Row",
    "Span",
    "Summary",
    "changed_files",
    "summarise",
    "write_manifest",
]
