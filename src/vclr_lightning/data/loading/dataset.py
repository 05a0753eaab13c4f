"""Training samples: the views of one video, drawn, decoded and augmented."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import Key, numpy_generator
from vclr_lightning.data.faults import blaming, picture
from vclr_lightning.data.loading.clip_reading import read_drawn, reject
from vclr_lightning.data.loading.views import ViewPlan
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.transforms.backends import is_split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vclr_lightning.core.types import Draw, Rejection
    from vclr_lightning.data.protocols import (
        ClipTransform,
        Sampler,
        SplitTransform,
        VideoReader,
        VideoTable,
    )


class _Clips(TypedDict):
    views: NotRequired[dict[str, Tensor]]
    begun: NotRequired[dict[str, Tensor]]
    augmentations: NotRequired[dict[str, NDArray[np.int32]]]


class TrainingSample(_Clips):
    """One video's part of a :class:`~vclr_lightning.core.types.Batch`; not ``valid``: unreadable.

    ``views[name]`` is ``(n, C, T, H, W)`` uint8, without views of 0 clips. With ``begin_only``,
    ``begun``, ``(n, ...)``, and the parameters ``augmentations``, ``(n, P)``, take their place.
    """

    rows: Mapping[str, NDArray[np.int64]]
    order: Mapping[str, NDArray[np.int64]]
    frame_indices: Mapping[str, NDArray[np.int64]]
    video_id: int
    group_id: int
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]


class VideoDataset(Dataset[TrainingSample]):
    """The views of a video, as a function of (seed, epoch, index) alone.

    The key is ``(epoch, index)``, where ``index`` is a row of the manifest. All needed views are
    read in one pass over the video, and every clip is augmented with its own random numbers. A row
    that is a clip within a file gives frames of the clip, and frame indices count from its first. A
    video that cannot be read is replaced by another, drawn from (seed, epoch, index, attempt), and
    listed in the sample's ``rejected``; ids and label are those of the video really decoded.

    Args:
        manifest: the videos.
        reader: opens them.
        samplers: decide which frames the views hold.
        transform: augments one clip.
        views: names of the views needed; ``None`` for all that the samplers yield.
        seed: of all draws.
        replace: whether a bad video is replaced. If not, its sample is blank and not ``valid``.
        share_augmentation: augment all clips of a video with the same random numbers.
        begin_only: only begin the transform, a ``SplitTransform``, and leave the rest to
            :func:`~vclr_lightning.data.loading.finishing.finish_batch`.
        max_attempts: videos tried for one sample before giving up.

    Attributes:
        manifest, reader, transform: see above; ``views`` is the :class:`ViewPlan`.

    Raises:
        UserError: the views do not fit together (see :class:`ViewPlan`), or ``begin_only`` is not
            possible; from indexing, ``max_attempts`` videos in a row cannot be read.

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
        ...     samplers=[TupleSampler(num_segments=3)],
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
        samplers: Sequence[Sampler],
        transform: ClipTransform,
        views: Iterable[str] | None = None,
        seed: int = 0,
        replace: bool = True,
        share_augmentation: bool = False,
        begin_only: bool = False,
        max_attempts: int = 10,
    ) -> None:
        self.manifest = manifest
        self.reader = reader
        self.transform = transform
        self.views = ViewPlan(samplers, views)
        self._seed = seed
        self._replace = replace
        self._share_augmentation = share_augmentation
        self._begin_only = begin_only
        if begin_only and not (is_split(transform) and replace):
            raise UserError(
                "begin_only needs a transform with begin() and finish(), and replace=True"
            )
        self._max_attempts = max_attempts

    def replaced(
        self,
        *,
        manifest: VideoTable | None = None,
        reader: VideoReader | None = None,
        transform: ClipTransform | None = None,
    ) -> VideoDataset:
        """Return the same dataset, with the same draws, with other parts of the same kind."""
        other = copy.copy(self)
        other.manifest = manifest if manifest is not None else self.manifest
        other.reader = reader or self.reader
        other.transform = transform or self.transform
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
        def draw(num_frames: int) -> tuple[Draw, NDArray[np.int64]]:
            drawn = self.views.draw(num_frames, *keys)
            return drawn, np.concatenate([x.ravel() for x in drawn.frame_indices.values()])

        drawn, frames = read_drawn(self.manifest, row, self.reader, draw)
        with blaming(self, self.manifest.path(row)):
            return self._describe(row, index, drawn, self._augmented(frames, keys), rejected)

    def _augmented(self, frames: list[NDArray[np.uint8]], keys: tuple[Key, ...]) -> _Clips:
        views: dict[str, Tensor] = {}
        rest: dict[str, NDArray[np.int32]] = {}
        position, size = 0, self.transform.size
        for name, spec in self.views.specs.items():
            clips, parameters = [], []
            for number in range(spec.clips):
                use = ("video",) if self._share_augmentation else (name, number)
                rng = numpy_generator(*keys, "augment", *use)
                clip = frames[position : position + spec.frames]
                with blaming(self.transform):
                    if self._begin_only:
                        begun, row = cast("SplitTransform", self.transform).begin(clip, rng)
                        clips.append(begun)
                        parameters.append(row)
                    else:
                        shape = (3, spec.frames, size, size)
                        clips.append(picture(self.transform(clip, rng), *shape))
                position += spec.frames
            views[name] = torch.stack(clips)
            if parameters:
                rest[name] = np.stack(parameters)
        return {"begun": views, "augmentations": rest} if self._begin_only else {"views": views}

    def _blank(self, index: int, rejected: list[Rejection]) -> TrainingSample:
        size = self.transform.size
        views = {
            name: torch.zeros(spec.clips, 3, spec.frames, size, size, dtype=torch.uint8)
            for name, spec in self.views.specs.items()
        }
        sample = self._describe(index, index, self.views.draw(1, 0), {"views": views}, rejected)
        return {**sample, "valid": False}

    def _describe(
        self,
        row: int,
        index: int,
        drawn: Draw,
        pictures: _Clips,
        rejected: list[Rejection],
    ) -> TrainingSample:
        return {
            **pictures,
            "rows": drawn.rows,
            "order": drawn.order,
            "frame_indices": drawn.frame_indices,
            "video_id": self.manifest.video_id(row),
            "group_id": self.manifest.group_id(row),
            "label": self.manifest.label(row),
            "index": index,
            "valid": True,
            "rejected": rejected,
        }
