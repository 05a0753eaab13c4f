"""Training samples: the views of one video, drawn, decoded and augmented."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import Key, numpy_generator
from vclr_lightning.data.faults import blaming
from vclr_lightning.data.loading.clip_reading import check_times, read_drawn, reject
from vclr_lightning.data.loading.view_transforms import Augmented, ViewTransforms, check_views
from vclr_lightning.data.loading.views import ViewPlan, named
from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Draw, Rejection
    from vclr_lightning.data.protocols import (
        ClipTransform,
        Sampler,
        VideoReader,
        VideoTable,
    )


class TrainingSample(Augmented):
    """One video's part of a :class:`~vclr_lightning.core.types.Batch`; not ``valid``: unreadable.

    There are no views of 0 clips. ``targets`` are those of samplers and of transforms.
    """

    rows: Mapping[str, NDArray[np.int64]]
    frame_indices: Mapping[str, NDArray[np.int64]]
    video_id: int
    group_id: int
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]
    host_ids: list[int]


class VideoDataset(Dataset[TrainingSample]):
    """The views of a video, as a function of (seed, epoch, index) alone.

    The key is ``(epoch, index)``, where ``index`` is a row of the manifest. All needed views are
    read in one pass over the video, and every clip is augmented with its own random numbers, or
    together with those of the same sharing key. A row that is a clip within a file gives frames of
    the clip, and frame indices count from its first. A video that cannot be read is replaced by
    another, drawn from (seed, epoch, index, attempt), and listed in the sample's ``rejected``; ids
    and label are those of the video really decoded.

    Args:
        manifest: the videos.
        reader: opens them.
        samplers: by name; decide which frames the views hold.
        transform: augments one clip.
        transforms: of views that have another one.
        share: sharing keys of views, instead of the samplers' (``ViewSpec.share``).
        views: names of the views needed; ``None`` for all that the samplers yield.
        targets: names of the targets needed.
        readers: configuration keys of who reads a view or target, for error messages.
        seed: of all draws.
        replace: whether a bad video is replaced. If not, its sample is blank and not ``valid``.
        begin_only: only begin each ``SplitTransform``, and leave the rest to
            :func:`~vclr_lightning.data.loading.finishing.finish_batch`.
        max_attempts: videos tried for one sample before giving up.

    Attributes:
        manifest, reader: see above.
        views: the :class:`ViewPlan`.
        transforms: the :class:`ViewTransforms`.

    Raises:
        UserError: the views do not fit together (see :class:`ViewPlan`), a needed target is
            missing, or ``begin_only`` is not possible; from indexing, ``max_attempts`` videos in a
            row cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from vclr_lightning.data.indexing import ensure_manifest
        >>> from vclr_lightning.data.readers import PyAVReader
        >>> from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
        >>> from vclr_lightning.data.prepare.video_writer import write_video
        >>> from vclr_lightning.data.transforms import PretrainTransform
        >>> folder = Path(tempfile.mkdtemp())
        >>> frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
        >>> write_video(folder / "a.mp4", frames, fps=10)
        >>> dataset = VideoDataset(
        ...     manifest=ensure_manifest(folder, cache_dir=folder / "cache", workers=1, show=False),
        ...     reader=PyAVReader(),
        ...     samplers={"tuples": TupleSampler(num_segments=3)},
        ...     transform=PretrainTransform(size=32),
        ... )
        >>> {name: tuple(view.shape) for name, view in dataset[0, 0]["views"].items()}
        {'anchor': (3, 3, 1, 32, 32), 'positive': (3, 3, 1, 32, 32), 'second': (1, 3, 1, 32, 32)}
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        samplers: Mapping[str, Sampler],
        transform: ClipTransform,
        transforms: Mapping[str, ClipTransform] | None = None,
        share: Mapping[str, str | None] | None = None,
        views: Collection[str] | None = None,
        targets: Collection[str] = (),
        readers: Mapping[str, str] | None = None,
        seed: int = 0,
        replace: bool = True,
        begin_only: bool = False,
        max_attempts: int = 10,
    ) -> None:
        self.manifest = manifest
        self.reader = reader
        self.views = ViewPlan(samplers, views, targets=targets, readers=readers)
        if self.views.needs_times:
            check_times(reader)
        every = [view for sampler in samplers.values() for view in sampler.views]
        check_views(every, transforms=transforms, share=share)
        self.transforms = ViewTransforms(
            self.views.specs, transform, transforms=transforms, share=share, begin=begin_only
        )
        made = self.views.targets | self.transforms.targets
        if missing := sorted(set(targets) - made):
            raise UserError(
                f"nothing makes the target {named(missing, readers)}; samplers and transforms make "
                f"{', '.join(sorted(made)) or 'none'}"
            )
        rows = {read[1:-1]: by for read, by in (readers or {}).items() if read[0] == "["}
        if missing := sorted(set(rows) - self.views.rows):
            raise UserError(
                f"nothing draws the rows {named(missing, rows)}; samplers draw "
                f"{', '.join(sorted(self.views.rows)) or 'none'}"
            )
        self._seed = seed
        self._replace = replace
        if begin_only and not (self.transforms.begun and replace):
            raise UserError(
                "augment='device' (begin_only) is not for the transforms of "
                f"{', '.join(self.views.specs)}, which only the workers compute; take 'torch'"
                if replace
                else "begin_only needs replace=True"
            )
        self._max_attempts = max_attempts

    def replaced(
        self,
        *,
        manifest: VideoTable | None = None,
        reader: VideoReader | None = None,
        transforms: ViewTransforms | None = None,
    ) -> VideoDataset:
        """Return the same dataset, with the same draws, with other parts of the same kind."""
        other = copy.copy(self)
        other.manifest = manifest if manifest is not None else self.manifest
        other.reader = reader or self.reader
        other.transforms = transforms or self.transforms
        return other

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample:
        epoch, index = key
        tried: list[int] = []
        rejected: list[Rejection] = []
        for attempt in range(self._max_attempts if self._replace else 1):
            keys = (self._seed, epoch, index, attempt)
            row = index if attempt == 0 else self._substitute(tried, keys)
            if row is None:
                break
            tried.append(row)
            try:
                return self._sample(row, index, keys, rejected)
            except VideoError as error:
                rejected.append(reject(self.manifest, row, error))
        if not self._replace:
            return self._blank(index, rejected)
        first, last = rejected[0], rejected[-1]
        raise UserError(
            f"{first['path']} and the {len(rejected) - 1} videos tried in its place cannot be read "
            f"(the last, {last['path']}: {last['reason']}); check the folder of the videos"
        )

    def _substitute(self, tried: list[int], keys: tuple[Key, ...]) -> int | None:
        """Draw one of the videos that were not tried for this sample."""
        if (left := len(self) - len(tried)) < 1:
            return None
        row = int(numpy_generator(*keys, "substitute").integers(left))
        for other in sorted(tried):
            row += row >= other
        return row

    def _sample(
        self, row: int, index: int, keys: tuple[Key, ...], rejected: list[Rejection]
    ) -> TrainingSample:
        def draw(num_frames: int, **times: Any) -> tuple[Draw, NDArray[np.int64]]:
            drawn = self.views.draw(num_frames, *keys, **times)
            return drawn, np.concatenate([x.ravel() for x in drawn.frame_indices.values()])

        needs_times = self.views.needs_times
        drawn, frames = read_drawn(self.manifest, row, self.reader, draw, needs_times=needs_times)
        with blaming(self, self.manifest.path(row)):
            return self._describe(row, index, drawn, self.transforms(frames, *keys), rejected)

    def _blank(self, index: int, rejected: list[Rejection]) -> TrainingSample:
        blank, drawn = self.transforms.blank(), self.views.trial()
        described = self._describe(index, index, drawn, blank, rejected)
        return {**described, "valid": False, "host_ids": []}

    def _describe(
        self,
        row: int,
        index: int,
        drawn: Draw,
        pictures: Augmented,
        rejected: list[Rejection],
    ) -> TrainingSample:
        return {
            **pictures,
            "rows": drawn.rows,
            "targets": {**drawn.targets, **pictures["targets"]},
            "frame_indices": drawn.frame_indices,
            "video_id": self.manifest.video_id(row),
            "group_id": self.manifest.group_id(row),
            "label": self.manifest.label(row),
            "index": index,
            "valid": True,
            "rejected": rejected,
            "host_ids": [self.manifest.video_id(row)],
        }
