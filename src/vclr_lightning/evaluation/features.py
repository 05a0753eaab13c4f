"""Frozen features of whole videos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.encoders import Encode

if TYPE_CHECKING:
    from vclr_lightning.core.types import FramesBatch, Rejection

VIDEO_COLUMNS = ("label", "video_id", "group_id", "index")


@dataclass(frozen=True)
class FeatureSet:
    """Features of N videos, and their labels and identity."""

    mean: Tensor  # (N, F), averaged over all frames of a video
    segments: Tensor  # (N, S, F), averaged over the frames of each of S equal parts, in order
    label: Tensor  # (N,), -1 if there is none
    video_id: Tensor  # (N,)
    group_id: Tensor  # (N,), shared by clips of one source
    index: Tensor  # (N,), row of the manifest
    frames: tuple[Tensor, ...] = ()  # of each video (m, F); empty unless kept
    rejected: Sequence[Rejection] = field(default_factory=list)  # videos that could not be read

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def concatenated(self) -> Tensor:
        """The concatenated features of the parts, ``(N, S F)``, which depend on temporal order."""
        return self.segments.flatten(1)

    def labelled(self) -> FeatureSet:
        """Return the videos that have a label.

        Raises:
            UserError: there is none.
        """
        keep = self.label >= 0
        if not bool(keep.any()):
            raise UserError(
                "none of the videos has a label, and this measure needs them; index a folder with "
                "a subfolder per class, or list files with labels"
            )
        return self.select(keep)

    def select(self, keep: Tensor) -> FeatureSet:
        """Return the videos where ``keep`` ``(N,)`` is true."""
        rows = {name: getattr(self, name)[keep] for name in ("mean", "segments", *VIDEO_COLUMNS)}
        frames = tuple(f for f, kept in zip(self.frames, keep.tolist(), strict=False) if kept)
        return FeatureSet(**rows, frames=frames, rejected=self.rejected)


def segment_means(features: Tensor, segments: int) -> Tensor:
    """Average consecutive frames into ``segments`` equal parts.

    Frame j of m belongs to part floor(j segments / m). With fewer frames than parts, an empty part
    takes the frame in its middle.

    Shape: ``(m, F)`` to ``(segments, F)``; m at least 1

    Example:
        >>> segment_means(torch.arange(6.0)[:, None], 3)[:, 0].tolist()
        [0.5, 2.5, 4.5]
        >>> segment_means(torch.arange(2.0)[:, None], 3)[:, 0].tolist()
        [0.0, 1.0, 1.0]
    """
    m = len(features)
    parts = []
    for i in range(segments):
        first, end = -(-i * m // segments), -(-(i + 1) * m // segments)
        if first == end:
            first = (2 * i + 1) * m // (2 * segments)
            end = first + 1
        parts.append(features[first:end].mean(dim=0))
    return torch.stack(parts)


def extract_features(
    encode: Encode,
    loader: Iterable[FramesBatch],
    *,
    segments: int = 3,
    device: torch.device | str = "cpu",
    chunk: int = 256,
    keep_frames: bool = False,
    show: bool = True,
    description: str = "features",
) -> FeatureSet:
    """Encode the evaluation frames of videos, and average them (Section 4.1 of the paper).

    Args:
        encode: frames to features, such as :meth:`PretrainModule.encode` or a backbone's
            :func:`~vclr_lightning.evaluation.encoders.frame_encoder`.
        loader: yields :class:`~vclr_lightning.core.types.FramesBatch`, such as
            ``datamodule.frames_loader("val")``.
        segments: S, parts of a video whose features are kept in order.
        device: where ``encode`` takes the frames.
        chunk: frames encoded at a time.
        keep_frames: keep the features of every frame as well.
        show: show a progress bar.
        description: of the bar.

    Shape: - encode: ``(M, C, T, H, W)`` uint8 to ``(M, F)``

    Raises:
        UserError: no video could be read.

    Example:
        >>> batch = {
        ...     "frames": torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1, 1, 1),
        ...     "mask": torch.ones(1, 6, dtype=torch.bool),
        ...     **{k: torch.zeros(1, dtype=torch.int64)
        ...        for k in ("label", "video_id", "group_id", "index")},
        ...     "rejected": [],
        ... }
        >>> features = extract_features(lambda x: x.flatten(1).float(), [batch])
        >>> features.mean.tolist(), features.concatenated.tolist()
        ([[2.5]], [[0.5, 2.5, 4.5]])
    """
    several = extract_each(
        {"": encode},
        loader,
        segments=segments,
        device=device,
        chunk=chunk,
        keep_frames=keep_frames,
        show=show,
        description=description,
    )
    return several[""]


def extract_each(
    encoders: Mapping[str, Encode],
    loader: Iterable[FramesBatch],
    *,
    segments: int = 3,
    device: torch.device | str = "cpu",
    chunk: int = 256,
    keep_frames: bool = False,
    show: bool = True,
    description: str = "features",
) -> dict[str, FeatureSet]:
    """Encode the same videos by several encoders, reading them once; see :func:`extract_features`.

    An encoder with a true attribute ``whole_videos`` takes all frames of one video at a time, in
    order.

    Raises:
        UserError: no video could be read.
    """
    means: dict[str, list[Tensor]] = {name: [] for name in encoders}
    parts: dict[str, list[Tensor]] = {name: [] for name in encoders}
    frames: dict[str, list[Tensor]] = {name: [] for name in encoders}
    columns: dict[str, list[Tensor]] = {name: [] for name in VIDEO_COLUMNS}
    rejected: list[Rejection] = []
    for batch in track(loader, description, show=show):
        rejected += batch["rejected"]
        if not len(batch["video_id"]):
            continue
        for name, values in columns.items():
            values.append(batch[name].cpu())  # type: ignore[literal-required]
        for name, of_each in encode_batch(encoders, batch, device=device, chunk=chunk).items():
            means[name] += [video.mean(dim=0).cpu() for video in of_each]
            parts[name] += [segment_means(video, segments).cpu() for video in of_each]
            frames[name] += [video.cpu() for video in of_each if keep_frames]
    if not columns["index"]:
        example = f"; the first, {rejected[0]['path']}: {rejected[0]['reason']}" if rejected else ""
        raise UserError(f"none of the {len(rejected)} videos can be read{example}")
    return {
        name: FeatureSet(
            mean=torch.stack(means[name]),
            segments=torch.stack(parts[name]),
            **{name: torch.cat(values) for name, values in columns.items()},
            frames=tuple(frames[name]),
            rejected=rejected,
        )
        for name in encoders
    }


def encode_batch(
    encoders: Mapping[str, Encode],
    batch: FramesBatch,
    *,
    device: torch.device | str = "cpu",
    chunk: int = 256,
) -> dict[str, tuple[Tensor, ...]]:
    """Return for each encoder the features of each video in a batch, ``(m, F)`` float32."""
    counts = batch["mask"].sum(dim=1).tolist()
    # Without the repeated frames that pad short videos.
    frames = batch["frames"][batch["mask"]].to(device)
    encoded = {}
    for name, encode in encoders.items():
        sizes = counts if getattr(encode, "whole_videos", False) else chunk
        features = torch.cat([encode(part).float() for part in torch.split(frames, sizes)])
        encoded[name] = torch.split(features, counts)
    return encoded
