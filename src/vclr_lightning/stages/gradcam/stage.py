"""Attention: where in a video's frames a network finds evidence for a score (Grad-CAM)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import track
from vclr_lightning.data.prepare.video_writer import write_video
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.models.run_record import run_config
from vclr_lightning.modules.clip_sizes import check_clip_sizes
from vclr_lightning.results import Result, present, save
from vclr_lightning.stages.gradcam.explained import ExplainedVideo, gradcam_result
from vclr_lightning.stages.gradcam.heat_maps import heat_map, shuffled_orders
from vclr_lightning.stages.gradcam.networks import Network, load_networks
from vclr_lightning.stages.gradcam.sampled_frames import sample_frames
from vclr_lightning.stages.gradcam.strips import video_film, video_strip
from vclr_lightning.stages.gradcam.targets import SHUFFLED
from vclr_lightning.stages.gradcam.videos import DataFactory, choose_videos
from vclr_lightning.stages.shared.hardware import Hardware
from vclr_lightning.stages.shared.run_config import config_count

if TYPE_CHECKING:
    from torch import nn


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
    rate: float | None = None,
    transform: EvalTransform | None = None,
    size: int = 160,
    fps: int = 8,
    hardware: Hardware | None = None,
    seed: int = 0,
    show: bool = True,
) -> Result:
    """Show where one or several networks look in some videos (Grad-CAM).

    Of every video ``num_frames`` x ``passes`` evenly spaced frames are sampled, one of each segment
    in a pass. What is explained is a score that a checkpoint really gives: of a class by a
    finetuned classifier, of the similarity of two tuples, or of the order prediction. Writes for
    each video a strip (PNG) of one pass and a film (MP4) of all, ``report.html``,
    ``gradcam.json`` and, where there are any, ``rejected.csv``.

    Args:
        ckpt: the network's weights.
        directory: where the files go.
        videos: paths of files, or paths and names within the data set; ``None`` for a sample.
        data: builds the data set, where it is needed.
        others: more weights to compare with, by name or as a list; ``"none"``: the same network
            with random weights.
        backbone: the network; ``None`` for the one that each file is of.
        target: ``"class"``, ``"similarity"`` or ``"order"``; ``None``: ``class`` where all
            checkpoints have a classifier, else ``similarity``.
        explain: of ``class`` and ``order``: ``"predicted"`` (or ``None``), ``"label"`` for what is
            right, or the name or number of an outcome.
        shuffled: of ``order``: which tuple is shuffled, ``"neither"`` (or ``None``), ``"anchor"``,
            ``"positive"`` or ``"both"``.
        layer: name of the layer; ``None`` for the last stage of convolutions or attention.
        split: to draw videos from; ``None``: ``val``, ``test`` or ``train``, the first there is.
        count: videos to draw.
        num_frames: S, frames (clips) of a strip's tuple; ``None``: as in the run of ``ckpt``,
            otherwise 3.
        passes: K, tuples of each video; at least 2.
        frames_per_clip: T, of networks of clips.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.
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
    shuffled = shuffled or SHUFFLED[0]
    hardware = hardware or Hardware()
    device = hardware.each[0]
    networks = load_networks(
        ckpt, others, backbone=backbone, target=target, layer=layer, device=device
    )
    transform = transform or EvalTransform()
    for one in networks:
        check_clip_sizes(one.target.network, [(frames_per_clip, transform.size)])
    kind, tuples = networks[0].target.kind, networks[0].target.tuples
    segments = _segments(networks, num_frames, ckpt)
    _check_outcome(networks, explain, shuffled)
    labelled = explain == "label" and kind == "class"
    chosen = choose_videos(
        videos, data=data, split=split, count=count, seed=seed, labelled=labelled
    )
    if labelled:
        for video in chosen:
            for network in networks:
                network.true_class(video)
    directory = Path(directory)
    explained: list[ExplainedVideo] = []
    rejected: list[tuple[str, str, str]] = []
    for number, video in enumerate(track(chosen, "attention", show=show)):
        try:
            clips, pictures = sample_frames(
                video,
                transform=transform,
                segments=segments,
                passes=passes,
                frames_per_clip=frames_per_clip,
                stride=stride,
                rate=rate,
                size=size,
            )
        except VideoError as error:
            rejected.append((video.split, str(video.path), " ".join(str(error).split())))
            continue
        order = shuffled_orders(
            shuffled, tuples=tuples, segments=segments, seed=seed, number=number
        )
        with hardware.computing(device):
            maps = [
                heat_map(
                    network,
                    video,
                    clips,
                    order=order,
                    explain=explain,
                    shuffled=shuffled,
                    size=size,
                    device=device,
                )
                for network in networks
            ]
        stem = f"{number:02}-" + re.sub(r"[^\w.-]+", "_", video.name)[:80]
        strip = video_strip(pictures, order, maps)
        explained.append(ExplainedVideo(video, stem, maps, strip))
        with replacing(directory / f"{stem}.png") as sink:
            Image.fromarray(strip).save(sink, "PNG", optimize=True)
        write_video(directory / f"{stem}.mp4", video_film(pictures, maps), fps=fps)
    if not explained:
        raise UserError(
            f"none of the {len(chosen)} videos can be read; the first, {rejected[0][1]}: "
            f"{rejected[0][2]}"
        )
    result = gradcam_result(explained, rejected, networks, segments, passes, shuffled)
    if show:
        return present(result, directory)
    save(result, directory)
    return result


def _segments(networks: Sequence[Network], wanted: int | None, ckpt: str | Path) -> int:
    """Return S, which all networks take.

    Raises:
        UserError: there is no such number.
    """
    fixed = {one.name: one.target.segments for one in networks if one.target.segments is not None}
    if len(set(fixed.values())) > 1:
        heads = ", ".join(f"{name} of {count}" for name, count in fixed.items())
        raise UserError(
            f"the order heads read tuples of different length ({heads}); compare checkpoints of "
            "one num_segments"
        )
    for name, count in fixed.items():
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


def _check_outcome(networks: Sequence[Network], explain: str | int | None, shuffled: str) -> None:
    """Refuse an outcome that a network does not predict.

    Raises:
        UserError: see above.
    """
    if shuffled not in SHUFFLED:
        raise UserError(f"shuffled={shuffled} must be {', '.join(SHUFFLED)}")
    for one in networks:
        if one.target.kind == "similarity" and explain is not None:
            raise UserError(
                f"explain={explain} chooses a class or an order; target=similarity has one score "
                "alone: leave it out"
            )
        if explain not in (None, "predicted", "label"):
            one.outcome(str(explain))
