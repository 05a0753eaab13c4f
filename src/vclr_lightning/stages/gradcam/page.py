"""Strips, films and the page of Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vclr_lightning.core.files import replacing
from vclr_lightning.data.prepare.video_writer import write_video
from vclr_lightning.report.attention import AttentionPage, AttentionStrip, write_attention
from vclr_lightning.report.heat import StripRow, film, overlay, png, strip
from vclr_lightning.stages.gradcam.explaining import Explained, Plan
from vclr_lightning.stages.gradcam.lookers import Looker

_WHAT = {
    "class": "the score of a class (its logit)",
    "similarity": (
        "the cosine similarity of the averaged features of two tuples of frames from the same "
        "video, the tuples' lengths taken as given"
    ),
    "order": "the order head's score (its logit) of which of two tuples is shuffled",
}
_HEADINGS = {1: ("one frame of each segment",), 2: ("anchor", "positive")}


def write_video_files(directory: Path, one: Explained, *, fps: int) -> None:
    """Write a video's strip, ``STEM.png``, and its film, ``STEM.mp4``.

    Args:
        directory: of the run.
        one: the video and its heat maps.
        fps: frames per second.

    Raises:
        UserError: a file cannot be written.
    """
    with replacing(directory / f"{one.stem}.png") as sink:
        sink.write(strip_png(one))
    pictures = _in_time(one.frames.pictures)
    columns = {"frames": pictures}
    for view in one.views:
        columns[view.name] = overlay(pictures, _in_time(view.heat[:, 0]))
    write_video(directory / f"{one.stem}.mp4", film(columns), fps=fps)


def strip_png(one: Explained) -> bytes:
    """Return the strip: the frames of one pass, and below them each network's heat."""
    passes = len(one.frames.pictures)
    k = passes // (2 * one.tuples)
    places = [k, (k + passes // 2) % passes][: one.tuples]
    # In the order in which the network was given them.
    frames = torch.stack(
        [one.frames.pictures[p][order] for p, order in zip(places, one.order, strict=True)]
    )
    rows = [StripRow(["frames"], frames)]
    for view in one.views:
        heat = torch.stack(
            [maps[order] for maps, order in zip(view.heat[k], one.order, strict=True)]
        )
        rows.append(StripRow([view.name, view.words], overlay(frames, heat)))
    return png(strip(rows, _HEADINGS[one.tuples]))


def write_attention_page(
    path: str | Path,
    explained: Sequence[Explained],
    found: Sequence[Looker],
    plan: Plan,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page of all strips.

    Args:
        path: of the page.
        explained: the videos.
        found: the networks.
        plan: what was looked at.
        notes: what a reader has to know.

    Raises:
        UserError: the page cannot be written.
    """
    kind = found[0].kind
    facts = {f"network {one.name}": f"{one.weights}, layer {one.layer}" for one in found}
    facts["frames"] = (
        f"{plan.segments * plan.passes} of each video, in {plan.passes} passes of {plan.segments}; "
        "the strip is of one pass, the film of all"
    )
    if kind == "order":
        facts["shuffled"] = plan.shuffled
    page = AttentionPage(
        title="Attention",
        summary=(
            f"Grad-CAM: where the frames raise {_WHAT[kind]}. Bright is hottest; each network's "
            "heat is scaled by its highest in the video, so it shows where, not how much."
        ),
        notes=notes,
        strips=[
            AttentionStrip(
                name=one.video.name,
                text="; ".join(f"{view.name}: {view.words}" for view in one.views),
                png=strip_png(one),
                film=f"{one.stem}.mp4",
            )
            for one in explained
        ],
        facts=facts,
    )
    return write_attention(path, page)


def _in_time(passes: Tensor) -> Tensor:
    """Passes ``(K, S, ...)`` to frames in order of time ``(S K, ...)``."""
    return passes.transpose(0, 1).flatten(0, 1)
