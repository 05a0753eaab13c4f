"""Which frames of a video are read for evaluation: nothing here is random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def segment_centres(num_frames: int, num_segments: int) -> NDArray[np.int64]:
    """Return the middle frame of each segment, ``floor((i + 1/2) n / S)``, with repeats if S > n.

    Shape:
        Returns ``(S,)`` int64.

    Example:
        >>> segment_centres(300, 3).tolist(), segment_centres(2, 3).tolist()
        ([50, 150, 250], [0, 1, 1])
    """
    segments = np.arange(num_segments, dtype=np.int64)
    return (2 * segments + 1) * num_frames // (2 * num_segments)


def snippet_indices(num_frames: int, every: int) -> NDArray[np.int64]:
    """Return the middle frame of each run of ``every`` frames: 8, 24, 40, ... for 16.

    Of a video shorter than that, its own middle frame.

    Shape:
        Returns ``(m,)`` int64, m at least 1.

    Example:
        >>> snippet_indices(41, 16).tolist(), snippet_indices(40, 16).tolist()
        ([8, 24, 40], [8, 24])
        >>> snippet_indices(5, 16).tolist()
        [2]
    """
    if num_frames <= every // 2:
        return np.array([num_frames // 2], dtype=np.int64)
    return np.arange(every // 2, num_frames, every, dtype=np.int64)


def evaluation_indices(num_frames: int, count: int, *, first: int = 0) -> NDArray[np.int64]:
    """Return ``count`` frames spread evenly from the first to the last, or all if there are fewer.

    Args:
        num_frames: frames of the video, at least 1.
        count: frames wanted, at least 1.
        first: number of the first frame. A position halfway between two frames is rounded to the
            even *number*, so counting from 1, as the released code does, picks the other
            neighbour. For 30 frames no position is halfway.

    Shape:
        Returns ``(min(num_frames, count),)`` int64, indices from 0 whatever ``first`` is.

    Example:
        >>> evaluation_indices(100, 4).tolist()
        [0, 33, 66, 99]
        >>> evaluation_indices(2, 4).tolist()
        [0, 1]
    """
    if num_frames < count:
        return np.arange(num_frames, dtype=np.int64)
    positions = np.linspace(first, first + num_frames - 1, count)
    return np.rint(positions).astype(np.int64) - first
