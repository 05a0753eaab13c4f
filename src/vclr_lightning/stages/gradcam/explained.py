"""Explained videos as a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.results import Gallery, Picture, PictureGroup, Result, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vclr_lightning.stages.gradcam.heat_maps import HeatMap
    from vclr_lightning.stages.gradcam.networks import Network
    from vclr_lightning.stages.gradcam.videos import ChosenVideo

_SCORES = {
    "class": "the score of a class (its logit)",
    "similarity": (
        "the cosine similarity of the averaged features of two tuples of frames from the same "
        "video, with the features' norms held constant"
    ),
    "order": "the order head's score (its logit) of which of two tuples is shuffled",
}


@dataclass(frozen=True)
class ExplainedVideo:
    """A video with every network's heat maps.

    Attributes:
        video: which.
        stem: of its files' names.
        maps: of each network.
        strip: frames of one pass above each network's heat, ``(H, W, 3)`` uint8.
    """

    video: ChosenVideo
    stem: str
    maps: Sequence[HeatMap]
    strip: NDArray[np.uint8]


def gradcam_result(
    explained: Sequence[ExplainedVideo],
    rejected: Sequence[tuple[str, str, str]],
    networks: Sequence[Network],
    segments: int,
    passes: int,
    shuffled: str,
) -> Result:
    """Return strips and scores of some videos; ``rejected``: split, path and reason of others."""
    kind = networks[0].target.kind
    notes = []
    if rejected:
        few = "1 video" if len(rejected) == 1 else f"{len(rejected)} videos"
        notes.append(f"{few} cannot be read and left out; see rejected.csv.")
    notes += [
        f"{one.network} has no heat in {video.video.name}: nothing in its layer raises the score."
        for video in explained
        for one in video.maps
        if not one.heat.any()
    ]
    provenance = {f"network {one.name}": f"{one.weights}, layer {one.layer}" for one in networks}
    provenance["frames"] = (
        f"{segments * passes} of each video, in {passes} passes of {segments}; the strip is of one "
        "pass, the film of all"
    )
    if kind == "order":
        provenance["shuffled"] = shuffled
    groups = []
    for one in explained:
        text = "; ".join(f"{heat.network}: {heat.summary}" for heat in one.maps)
        picture = Picture(
            frames=torch.from_numpy(one.strip).permute(2, 0, 1),
            caption=text,
            tooltip=f"{one.video.name}: {text}",
            link=f"{one.stem}.mp4",
        )
        groups.append(PictureGroup(rows=[("", [picture])], title=one.video.name))
    record: dict[str, Any] = {
        "target": kind,
        "num_frames": segments,
        "passes": passes,
        "shuffled": shuffled if kind == "order" else None,
        "networks": [
            {"name": one.name, "weights": one.weights, "layer": one.layer} for one in networks
        ],
        "videos": [
            {
                "name": one.video.name,
                "path": str(one.video.path),
                "strip": f"{one.stem}.png",
                "film": f"{one.stem}.mp4",
                "views": [
                    {
                        "name": heat.network,
                        "explained": heat.outcome,
                        "score": heat.score,
                        "share": heat.probability,
                    }
                    for heat in one.maps
                ],
            }
            for one in explained
        ],
    }
    return Result(
        title="Attention",
        summary=(
            f"Grad-CAM: where the frames raise {_SCORES[kind]}. Bright is highest; each network's "
            "heat map is scaled by its maximum in the video, so it shows where, not how much."
        ),
        notes=notes,
        content=[
            Gallery(title="Heat maps", groups=groups, layout="wide"),
            Table(
                title="Explained scores",
                columns=["video", *(one.name for one in networks)],
                rows=[[one.video.name, *(heat.summary for heat in one.maps)] for one in explained],
            ),
            Table(
                columns=["split", "path", "reason"], rows=rejected, file="rejected", shown="file"
            ),
        ],
        provenance=provenance,
        provenance_title="Networks and frames",
        numbers={"videos": len(explained), "rejected": len(rejected)},
        file="gradcam",
        record=record,
    )
