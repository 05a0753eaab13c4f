"""Base of evaluation samples: clips of each video."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.loading.clip_reading import read_clips, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling.frame_indices import check_clips, clip_indices, possible_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import VideoReader, VideoTable
    from vclr_lightning.data.sampling import RandomWindow, SlidingWindows


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipsDataset(Dataset[Any]):
    """Clips of each video, which begin where a subclass says, or windows of clips."""

    manifest: VideoTable
    reader: VideoReader
    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None
    windows: RandomWindow | SlidingWindows | None = None

    def __post_init__(self) -> None:
        if self.windows is not None:
            object.__setattr__(self, "frames_per_clip", self.windows.frames_per_clip)
        names = {field.name for field in fields(self)} - {"seed", "rate"}
        numbers = {name: x for name in names if isinstance(x := getattr(self, name), int)}
        check_clips(rate=self.rate, **numbers)

    def __len__(self) -> int:
        return len(self.manifest)

    def read(
        self,
        index: int,
        starts: Callable[..., NDArray[np.int64]],
        converter: Callable[[], Callable[[list[NDArray[np.uint8]]], Tensor]],
    ) -> tuple[list[Tensor], list[Rejection]]:
        """Read the clips that begin at ``starts(num_frames, fitting, times)``.

        At the first ``fitting`` frames, a whole clip fits. With windows, read those instead. If
        reading fails, return why.
        """

        windows = self.windows

        def draw(num_frames: int, times: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
            if windows is not None:
                rng = numpy_generator(windows.seed, "window", index)
                found = windows.windows(num_frames, rng, times=times)
                return found.reshape(-1, self.frames_per_clip)
            at: Any = {"stride": self.stride, "rate": self.rate, "times": times}
            fitting = possible_starts(num_frames, steps=self.frames_per_clip - 1, **at)
            begins = starts(num_frames, fitting, times)
            return clip_indices(begins, frames=self.frames_per_clip, num_frames=num_frames, **at)

        try:
            clips = read_clips(
                self.manifest,
                index,
                self.reader,
                draw=draw,
                converter=converter,
                needs_times=self.rate is not None if windows is None else windows.needs_times,
            )
        except VideoError as error:
            return [], [reject(self.manifest, index, error)]
        return clips, []
