"""Which frames of a video are read: segments, random draws, clips, evaluation frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SegmentRule = Literal["exact", "floor"]
DrawRule = Literal["without_replacement", "independent"]

_MILLISECOND = 0.001  # times of presentation are often rounded to it


def segment_bounds(
    num_frames: int, num_segments: int, *, rule: SegmentRule = "exact"
) -> NDArray[np.int64]:
    """Cut a video into segments of (nearly) equal length.

    ``"exact"``: segment i holds frames ``floor(i n / S)`` to ``floor((i + 1) n / S) - 1``.
    ``"floor"``: every segment has ``n // S`` frames and the last one takes the remainder, as in the
    released code (which first stretches each video to 300 frames, unlike this); with fewer frames
    than segments, where that code fails, the same as ``"exact"``. A segment that would be empty
    holds the one frame ``floor((i + 1/2) n / S)``.

    Shape:
        Returns ``(S, 2)`` int64: index of the first frame, and of the one after the last.

    Example:
        >>> segment_bounds(8, 3).tolist()
        [[0, 2], [2, 5], [5, 8]]
        >>> segment_bounds(8, 3, rule="floor").tolist()
        [[0, 2], [2, 4], [4, 8]]
        >>> segment_bounds(2, 3).tolist()
        [[0, 1], [0, 1], [1, 2]]
    """
    segments = np.arange(num_segments, dtype=np.int64)
    if rule == "exact" or num_frames < num_segments:
        start = segments * num_frames // num_segments
        stop = (segments + 1) * num_frames // num_segments
    else:
        start = segments * (num_frames // num_segments)
        stop = start + num_frames // num_segments
        stop[-1] = num_frames
    middle = (2 * segments + 1) * num_frames // (2 * num_segments)
    empty = stop <= start
    return np.stack([np.where(empty, middle, start), np.where(empty, middle + 1, stop)], axis=1)


def draw_two(
    bounds: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    rule: DrawRule = "without_replacement",
) -> NDArray[np.int64]:
    """Draw two frames from each segment, uniformly.

    ``"without_replacement"``: the two differ if the segment has at least two frames.
    ``"independent"``: they may be the same frame.

    Shape:
        ``bounds`` ``(S, 2)``; returns ``(2, S)`` int64.

    Example:
        >>> draw_two(np.array([[0, 2], [7, 8]]), np.random.default_rng(0)).tolist()
        [[1, 7], [0, 7]]
    """
    start = bounds[:, 0]
    size = bounds[:, 1] - start
    first = rng.integers(0, size)
    if rule == "independent":
        second = rng.integers(0, size)
    else:
        # One of the other size - 1 frames: those from `first` on move up by one.
        second = rng.integers(0, np.maximum(size - 1, 1))
        second = np.where(size > 1, second + (second >= first), 0)
    return np.stack([start + first, start + second])


def draw_unused(
    num_frames: int,
    used: tuple[NDArray[np.int64], ...],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw ``count`` frames that are not in ``used``, without replacement, sorted.

    If the video has too few of them, frames of the last array of ``used`` are drawn next, then
    those of the one before, and finally any frame, with replacement.

    Shape:
        Returns ``(count,)`` int64.

    Example:
        >>> anchor, positive = np.array([0]), np.array([2])
        >>> draw_unused(3, (anchor, positive), 2, np.random.default_rng(0)).tolist()
        [1, 2]
    """
    drawn = np.empty(0, dtype=np.int64)
    for tier in range(len(used), -1, -1):
        taken = np.concatenate([*used[:tier], drawn])
        free = np.ones(num_frames, dtype=bool)
        free[taken] = False
        pool = np.flatnonzero(free)
        missing = min(count - len(drawn), len(pool))
        drawn = np.concatenate([drawn, rng.choice(pool, missing, replace=False, shuffle=False)])
    repeats = rng.integers(0, num_frames, count - len(drawn))
    return np.sort(np.concatenate([drawn, repeats]))


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


def clip_indices(
    starts: NDArray[np.int64],
    *,
    frames: int,
    stride: int = 1,
    num_frames: int,
    rate: float | None = None,
    times: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Return the frames of clips that begin at ``starts``; past the end the last frame repeats.

    Args:
        starts: first frame of each clip.
        frames: T.
        stride: distance between the frames of a clip.
        num_frames: frames of the video.
        rate: frames per second, instead of ``stride``: frame k of a clip is the one on screen
            ``k / rate`` seconds after the first one begins, up to a millisecond.
        times: with ``rate``: when each frame of the video begins, in seconds.

    Shape:
        ``starts`` ``(n,)``, ``times`` ``(num_frames,)``; returns ``(n, T)`` int64.

    Example:
        >>> clip_indices(np.array([0, 4]), frames=3, stride=2, num_frames=7).tolist()
        [[0, 2, 4], [4, 6, 6]]
        >>> times = np.array([0.0, 0.1, 0.2, 0.6, 0.7])  # one frame lasts longer
        >>> clip_indices(np.array([1]), frames=4, rate=5, num_frames=5, times=times).tolist()
        [[1, 2, 2, 4]]
    """
    if rate is None:
        steps = stride * np.arange(frames, dtype=np.int64)
        indices: NDArray[np.int64] = np.minimum(starts[:, None] + steps, num_frames - 1)
        return indices
    assert times is not None
    at = times[starts, None] + np.arange(frames) / rate
    return np.searchsorted(times, at + _MILLISECOND, side="right").astype(np.int64) - 1


def possible_starts(
    num_frames: int,
    *,
    steps: int,
    stride: int = 1,
    rate: float | None = None,
    times: NDArray[np.float64] | None = None,
) -> int:
    """Return after how many of a video's first frames ``steps`` steps fit; 1 if after none.

    A step is ``stride`` frames, or ``1 / rate`` seconds; see :func:`clip_indices`.

    Example:
        >>> possible_starts(10, steps=3, stride=2), possible_starts(5, steps=3, stride=2)
        (4, 1)
        >>> possible_starts(5, steps=3, rate=10, times=np.arange(5) / 8)
        2
    """
    if rate is None:
        return max(1, num_frames - steps * stride)
    assert times is not None
    left = times[num_frames - 1] - times[:num_frames]  # seconds until the last frame
    return max(1, int((left + _MILLISECOND >= steps / rate).sum()))


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
