"""From a trained localisation network to ranked proposals, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import track
from vclr_lightning.functional.proposals import Floats, candidate_proposals, soft_nms

if TYPE_CHECKING:
    from torch import nn

    from vclr_lightning.data.localization import AnnotatedVideo, LeftOut, PositionSet
    from vclr_lightning.stages.shared.hardware import Hardware


@torch.no_grad()
def propose(
    model: nn.Module,
    videos: PositionSet,
    *,
    hardware: Hardware,
    batch_size: int = 16,
    keep: int = 100,
    show: bool = False,
) -> list[Floats]:
    """Return the ranked proposals of every video, ``(n, 3)``: start and end in seconds, score.

    Args:
        model: a boundary-matching network.
        videos: at the positions that it takes.
        hardware: where it runs; the first of its devices.
        batch_size: videos at a time.
        keep: proposals of a video, at most.
        show: show a progress bar.
    """
    device = hardware.each[0]
    training = model.training
    model.eval().to(device)
    dtype = next(model.parameters()).dtype  # float64, trained so
    found = []
    starts = range(0, len(videos), batch_size)
    for first in track(starts, "proposals", show=show):
        features = videos.features[first : first + batch_size].transpose(1, 2)
        with hardware.computing(device):
            output = model(features.to(device, dtype))
        maps, start, end = (part.double().cpu().numpy() for part in output)
        for row in range(len(features)):
            ranked = soft_nms(candidate_proposals(start[row], end[row], maps[row]), keep=keep)
            video = videos.videos[first + row]
            ranked[:, :2] = np.minimum(ranked[:, :2] * video.covered, video.duration)
            found.append(ranked)
    model.train(training)
    return found


def write_submission(
    path: Path, videos: Sequence[AnnotatedVideo], proposals: Sequence[Floats], *, details: str
) -> None:
    """Write proposals in the form of ActivityNet's challenge.

    Raises:
        UserError: the file cannot be written.
    """
    results = {
        video.name: [{"score": score, "segment": [start, end]} for start, end, score in p.tolist()]
        for video, p in zip(videos, proposals, strict=True)
    }
    content = {
        "version": "VERSION 1.3",
        "results": results,
        "external_data": {"used": True, "details": details},
    }
    write_json(path, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as sink:
        sink.write(json.dumps(content, indent=1).encode())


def write_left_out(path: Path, items: Sequence[LeftOut]) -> None:
    """Write what was left out or changed, if anything was.

    Raises:
        UserError: the file cannot be written.
    """
    if not items:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "what", "reason"))
    writer.writerows(items)
    with replacing(path) as sink:
        sink.write(text.getvalue().encode())
