"""Attention: where in a video's frames a network finds what raises a score (Grad-CAM)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.stages.gradcam.chosen_videos import DataFactory, choose_videos
from vclr_lightning.stages.gradcam.explaining import Explained, Plan, explain_video
from vclr_lightning.stages.gradcam.lookers import Looker, lookers
from vclr_lightning.stages.gradcam.page import write_attention_page, write_video_files
from vclr_lightning.stages.gradcam.results import remarks, write_left_out, write_results
from vclr_lightning.stages.gradcam.spread_frames import read_frames
from vclr_lightning.stages.shared.hardware import Hardware
from vclr_lightning.stages.shared.run_config import config_count, run_config

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


def gradcam(
    *,
    ckpt: str | Path,
    directory: str | Path,
    videos: Sequence[str | Path] | str | None = None,
    data: DataFactory | None = None,
    others: Mapping[str, str | Path] | Sequence[str | Path] | None = None,
    backbone: nn.Module | None = None,
    target: str | None = None,
    explain: str | int | None = None,
    shuffled: str | None = None,
    layer: str | None = None,
    split: str | None = None,
    count: int = 4,
    num_frames: int | None = None,
    passes: int = 8,
    frames_per_clip: int = 1,
    stride: int = 1,
    transform: EvalTransform | None = None,
    size: int = 160,
    fps: int = 8,
    hardware: Hardware | None = None,
    seed: int = 0,
    show: bool = True,
) -> dict[str, float]:
    """Show where one or several networks look in some videos (Grad-CAM).

    Of every video ``num_frames`` x ``passes`` evenly spaced frames are looked at, one of each
    segment in a pass. What is explained is a score that a checkpoint really gives: of a class by a
    finetuned classifier, of the similarity of two tuples, or of the order prediction. Writes for
    each video a strip (PNG) of one pass and a film (MP4) of all, ``report.html``,
    ``gradcam.json`` and, where there are any, ``rejected.csv``.

    Args:
        ckpt: the network's weights.
        directory: where the files go.
        videos: paths of files, or paths and names within the data set; ``None`` for a sample.
        data: builds the data set, where it is needed.
        others: more weights to set beside, by name or as a list; ``"none"``: the same network with
            random weights.
        backbone: the network; ``None`` for the one that each file is of.
        target: ``"class"``, ``"similarity"`` or ``"order"``; ``None``: ``class`` where all
            checkpoints have a classifier, else ``similarity``.
        explain: of ``class`` and ``order``: ``"predicted"`` (or ``None``), ``"label"`` for what is
            right, or the name or number of an outcome.
        shuffled: of ``order``: which tuple is shuffled, ``"neither"`` (or ``None``), ``"anchor"``,
            ``"positive"`` or ``"both"``.
        layer: name of the layer; ``None`` for the last convolutional stage.
        split: to draw videos from; ``None``: ``val``, ``test`` or ``train``, the first there is.
        count: videos to draw.
        num_frames: S, frames (clips) of a strip's tuple; ``None``: as in the run of ``ckpt``,
            otherwise 3.
        passes: K, tuples of each video; at least 2.
        frames_per_clip: T, of networks of clips.
        stride: distance between the frames of a clip.
        transform: resizes and crops a frame.
        size: of the pictures to show, in pixels.
        fps: frames per second of the films.
        hardware: on which device; the first one is used.
        seed: of the sample, and of shuffles.
        show: show a progress bar.

    Returns:
        ``videos`` and ``rejected``: how many are shown, and how many cannot be read.

    Raises:
        UserError: a checkpoint lacks the layer, or cannot give the target; a video is not found, or
            none can be read; or an argument is impossible.
    """
    for name, value, least in (
        ("num_frames", num_frames, 1),
        ("passes", passes, 2),
        ("frames_per_clip", frames_per_clip, 1),
        ("stride", stride, 1),
        ("size", size, 32),
        ("fps", fps, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"{name}={value} of Grad-CAM must be {least} or more")
    if shuffled is not None and target != "order":
        raise UserError(f"shuffled={shuffled} is for target=order; leave it out, or give that")
    hardware = hardware or Hardware()
    device = hardware.each[0]
    found = lookers(ckpt, others, backbone=backbone, target=target, layer=layer, device=device)
    plan = Plan(
        segments=_segments(found, num_frames, ckpt),
        passes=passes,
        explain=explain,
        shuffled=shuffled or "neither",
        seed=seed,
    )
    plan.check(found)
    labelled = explain == "label" and found[0].kind == "class"
    chosen = choose_videos(
        videos, data=data, split=split, count=count, seed=seed, labelled=labelled
    )
    if labelled:
        plan.check_labels(found, chosen)
    directory = Path(directory)
    explained: list[Explained] = []
    rejected: list[dict[str, str]] = []
    for number, video in enumerate(track(chosen, "attention", show=show)):
        try:
            frames = read_frames(
                video,
                transform=transform or EvalTransform(),
                segments=plan.segments,
                passes=passes,
                frames_per_clip=frames_per_clip,
                stride=stride,
                size=size,
            )
        except VideoError as error:
            reason = " ".join(str(error).split())
            rejected.append({"split": video.split, "path": str(video.path), "reason": reason})
            continue
        with hardware.computing(device):
            one = explain_video(number, video, frames, found, plan)
        write_video_files(directory, one, fps=fps)
        explained.append(one)
    write_left_out(directory / "rejected.csv", rejected)
    if not explained:
        raise UserError(
            f"none of the {len(chosen)} videos can be read; the first, {rejected[0]['path']}: "
            f"{rejected[0]['reason']}"
        )
    notes = remarks(explained, rejected)
    for note in notes:
        logger.info("%s", note)
    write_results(directory / "gradcam.json", explained, found, plan, notes)
    page = write_attention_page(directory / "report.html", explained, found, plan, notes)
    if show:
        _print(explained, found, page)
    return {"videos": len(explained), "rejected": len(rejected)}


def _segments(found: Sequence[Looker], wanted: int | None, ckpt: str | Path) -> int:
    """Return S, that all networks take.

    Raises:
        UserError: there is no such number.
    """
    fixed = {one.name: one.target.segments for one in found if one.target.segments is not None}
    if len(set(fixed.values())) > 1:
        heads = ", ".join(f"{name} of {count}" for name, count in fixed.items())
        raise UserError(
            f"the order heads read tuples of different length ({heads}); compare checkpoints of "
            "one num_segments"
        )
    if fixed:
        name, count = next(iter(fixed.items()))
        if wanted is not None and wanted != count:
            raise UserError(
                f"the order head of {name} reads tuples of {count} frames, not "
                f"num_frames={wanted}; leave num_frames out"
            )
        return count
    if wanted is not None:
        return wanted
    saved = {} if str(ckpt).lower() == "none" else run_config(Path(ckpt))
    return config_count(saved, "num_segments", 3, ckpt)


def _print(explained: Sequence[Explained], found: Sequence[Looker], page: Path) -> None:
    from vclr_lightning.core.screen import PlainTable, show, wrote

    table = PlainTable(title=f"attention, target {found[0].kind}", title_justify="left")
    for column in ("video", *(one.name for one in found)):
        table.add_column(column, overflow="fold")
    for video in explained:
        table.add_row(video.video.name, *(view.words for view in video.views))
    show(table)
    wrote(page)
