"""Class scores of whole videos, computed by all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vclr_lightning.core import distributed
from vclr_lightning.core.distributed import gather_objects
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.data.loading.epochs import rank_shard
from vclr_lightning.data.loading.evaluation_datasets import CentresDataset
from vclr_lightning.data.loading.loader import BatchLoader
from vclr_lightning.data.sampling import SlidingWindows
from vclr_lightning.data.sampling.frame_indices import check_clips
from vclr_lightning.data.transforms import ViewsTransform

if TYPE_CHECKING:
    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.data.protocols import VideoTable


_AT_ONCE = 16  # windows


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """The frames and crops of a test video that a classifier scores.

    Args:
        num_segments: number of segments; one frame (or clip) is taken from each.
        transform: crops of each.
        frames_per_clip: T, for networks of clips.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.
        draws: ``"centres"`` of the segments; or ``"random"``, as the released code tests TSN on
            Something-Something.
        seed: of random draws.
        windows: instead, windows of clips; the classifier sees one at a time, and their scores are
            averaged, as those of crops are.

    Raises:
        UserError: a number is below 1, or ``draws`` is unknown.

    Example:
        >>> VideoViews(num_segments=25, transform=ViewsTransform(size=256, crops="three")).summary
        '25 frames x three-crop 256'
    """

    num_segments: int = 25
    transform: ViewsTransform = field(default_factory=ViewsTransform)
    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None
    draws: str = "centres"
    seed: int = 0
    windows: SlidingWindows | None = None

    def __post_init__(self) -> None:
        if self.draws not in ("centres", "random"):
            raise UserError(f"draws={self.draws!r} of testing must be 'centres' or 'random'")
        names = ("num_segments", "frames_per_clip", "stride")
        check_clips(rate=self.rate, **{name: getattr(self, name) for name in names})

    @property
    def summary(self) -> str:
        """Number of frames and crops, in words."""
        crops = {"center": "centre", "three": "three-crop", "ten": "ten-crop"}
        views = f"{crops[self.transform.crops]} {self.transform.size}"
        if (windows := self.windows) is not None:
            clips = f"{windows.num_segments} x " if windows.num_segments > 1 else ""
            step = f"frames in steps of {windows.stride}" if windows.stride > 1 else "frames"
            step = step if windows.rate is None else f"frames, {windows.rate:g} a second"
            return (
                f"windows of {clips}{windows.frames_per_clip} {step}, one every {windows.every} "
                f"steps x {views}"
            )
        t = self.frames_per_clip
        what = "frames" if t == 1 else f"clips of {t} frames"
        what = f"random {what}" if self.draws == "random" else what
        return f"{self.num_segments} {what} x {views}"


@dataclass(frozen=True)
class ScoredVideos:
    """Scores of M videos, in the table's order.

    Attributes:
        scores: ``(M, classes)``.
        label: ``(M,)``, -1 where there is none.
        index: ``(M,)``, their rows of the table.
        rejected: videos left out because they cannot be read.
    """

    scores: Tensor
    label: Tensor
    index: Tensor
    rejected: Sequence[Rejection]


def score_videos(
    module: Any,
    data: VideoDataModule,
    table: VideoTable,
    *,
    views: VideoViews,
    device: torch.device | str = "cpu",
    show: bool = True,
    description: str = "test videos",
) -> ScoredVideos:
    """Return a classifier's scores of all videos of a table; every rank has to call it.

    Args:
        module: has ``scores(views)``, ``(B, k, S, C, T, H, W)`` uint8 to ``(B, classes)``.
        data: the data module, which knows how videos are loaded.
        table: the videos.
        views: frames and crops of each.
        device: of the module.
        show: show a progress bar.
        description: of it.

    Raises:
        UserError: no video can be read.
    """
    dataset = CentresDataset(
        manifest=table,
        reader=data.reader,
        transform=views.transform,
        num_segments=views.num_segments,
        frames_per_clip=views.frames_per_clip,
        stride=views.stride,
        rate=views.rate,
        seed=views.seed if views.draws == "random" else None,
        windows=views.windows,
    )
    ranks, rank = distributed.world_size(), distributed.rank()
    keys = list(rank_shard(len(table), world_size=ranks, rank=rank))
    size = data.eval_batch_size if views.windows is None else 1  # their number differs
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    loader = BatchLoader(dataset, batches, data.workers(ranks))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    rejected: list[Rejection] = []
    for batch in track(loader, description, show=show and rank == 0):
        rejected += batch["rejected"]
        if len(batch["views"]):
            if views.windows is None:
                scores = module.scores(batch["views"].to(device)).float().cpu()
            else:
                parts = batch["views"][0].split(_AT_ONCE)
                each = [module.scores(part[:, None].to(device)).float().cpu() for part in parts]
                scores = torch.cat(each).mean(dim=0, keepdim=True)
            found.append((scores, batch["label"], batch["index"]))
    gathered = gather_objects((found, rejected))
    all_parts = [part for own, _ in gathered for part in own]
    bad = [item for _, own in gathered for item in own]
    if not all_parts:
        first = f"; the first, {bad[0]['path']}: {bad[0]['reason']}" if bad else ""
        raise UserError(f"no video of {len(table)} can be read{first}")
    scores, label, index = (torch.cat(columns) for columns in zip(*all_parts, strict=True))
    return ScoredVideos(scores, label, index, bad)
