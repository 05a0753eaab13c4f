"""What Grad-CAM leaves beside its pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vclr_lightning import __version__
from vclr_lightning.core.files import replacing
from vclr_lightning.stages.gradcam.explaining import Explained, Plan
from vclr_lightning.stages.gradcam.lookers import Looker


def remarks(explained: Sequence[Explained], rejected: Sequence[Any]) -> list[str]:
    """Say what is left out, and what could be misread, a sentence each."""
    notes = []
    if rejected:
        few = "1 video" if len(rejected) == 1 else f"{len(rejected)} videos"
        notes.append(f"{few} cannot be read and left out; see rejected.csv.")
    for video in explained:
        notes += [
            f"{view.name} has no heat in {video.video.name}: nothing in its layer raises the score."
            for view in video.views
            if not view.heat.any()
        ]
    return notes


def write_left_out(path: Path, rejected: Sequence[Mapping[str, str]]) -> None:
    """Write the videos that cannot be read, if there are any.

    Raises:
        UserError: the file cannot be written.
    """
    if not rejected:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, ("split", "path", "reason"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rejected)
    with replacing(path) as sink:
        sink.write(text.getvalue().encode())


def write_results(
    path: Path,
    explained: Sequence[Explained],
    found: Sequence[Looker],
    plan: Plan,
    notes: Sequence[str],
) -> None:
    """Write what is shown, and of what, as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "target": found[0].kind,
        "num_frames": plan.segments,
        "passes": plan.passes,
        "shuffled": plan.shuffled if found[0].kind == "order" else None,
        "networks": [
            {"name": one.name, "weights": one.weights, "layer": one.layer} for one in found
        ],
        "videos": [
            {
                "name": video.video.name,
                "path": str(video.video.path),
                "strip": f"{video.stem}.png",
                "film": f"{video.stem}.mp4",
                "views": [
                    {"name": v.name, "explained": v.outcome, "score": v.score, "share": v.share}
                    for v in video.views
                ],
            }
            for video in explained
        ],
        "notes": list(notes),
        "version": __version__,
    }
    with replacing(path) as sink:
        sink.write(json.dumps(content, indent=1).encode())
