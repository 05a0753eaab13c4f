"""What reading costs before and after, on a sample of the videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import PyAVReader

_SAMPLE = 16  # videos
_DRAWS = 3  # of each
_BUDGET = 30.0  # seconds after which no further video is begun


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCost:
    """CPU time of opening a video and reading 3 + 3 of its frames: medians over videos.

    Attributes:
        before: seconds, of the source.
        after: seconds, of the prepared file.
        videos: how many were measured.
    """

    before: float
    after: float
    videos: int


def read_cost(pairs: Sequence[tuple[Path, Path, int]], *, show: bool = True) -> ReadCost | None:
    """Measure a sample of the videos, source and result in turns, the same frames of both.

    Args:
        pairs: source, result and number of frames of each video.
        show: whether to show progress.

    Returns:
        The cost, or ``None`` where no source can be read any more.
    """
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(pairs))[:_SAMPLE]
    begin = time.monotonic()
    found: list[tuple[float, float]] = []
    with progress_bar("measuring what reading costs", len(chosen), show=show) as update:
        for number, k in enumerate(chosen, 1):
            source, prepared, num_frames = pairs[k]
            draws = [_draw(rng, num_frames) for _ in range(_DRAWS)]
            try:
                costs = [
                    (_seconds(source, indices), _seconds(prepared, indices)) for indices in draws
                ]
            except (VideoError, FrameCountChangedError, IndexError, OSError):
                continue
            before, after = np.median(costs, axis=0).tolist()
            found.append((before, after))
            update(number, "")
            if time.monotonic() - begin > _BUDGET:
                break
    if not found:
        return None
    before, after = np.median(found, axis=0).tolist()
    return ReadCost(before=before, after=after, videos=len(found))


def _draw(rng: np.random.Generator, num_frames: int) -> NDArray[np.int64]:
    """One frame of each third of the video, twice."""
    bounds = np.linspace(0, num_frames, 4)
    return np.floor(rng.uniform(bounds[:-1], bounds[1:], (2, 3))).astype(np.int64).ravel()


def _seconds(file: Path, indices: NDArray[np.int64]) -> float:
    begin = time.process_time()
    with PyAVReader().open(file) as video:
        video.read(indices)
    return time.process_time() - begin
