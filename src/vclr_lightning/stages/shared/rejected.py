"""The list of videos that could not be read, beside what was measured on the others."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vclr_lightning.core.files import replacing


def write_rejected(path: Path, rejected: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the videos of each split that could not be read, if there are any.

    Raises:
        UserError: the file cannot be written.
    """
    if not any(rejected.values()):
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "video_id", "path", "reason"))
    for split, items in rejected.items():
        writer.writerows((split, r["video_id"], r["path"], r["reason"]) for r in items)
    with replacing(path) as sink:
        sink.write(text.getvalue().encode())
