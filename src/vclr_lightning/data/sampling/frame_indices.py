"""Which frames of a video are read: segments, random draws, clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SegmentRule = Literal["exact", "floor"]
DrawRule = Literal["without_replacement", "independent"]

MILLISECOND = 0.001
"""Seconds: containers often round times of presentation to it."""


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


def clip_indices(
    starts: NDArray[np.int64],
    *,
    frames: int,
    num_frames: int,
    stride: int = 1,
    rate: float | None = None,
    times: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Return the frames of clips that begin at ``starts``; past the end the last frame repeats.

    Args:
        starts: first frames.
        frames: T.
        num_frames: of the video.
        stride: distance between the frames of a clip.
        rate: frames per second instead: frame k is the one on screen ``k / rate`` after the first,
            up to a millisecond, to which some containers round.
        times: when each frame of the video is shown, in seconds, rising; needed for ``rate``.

    Shape:
        ``starts`` ``(n,)``; ``times`` ``(num_frames,)``; returns ``(n, T)`` int64.

    Example:
        >>> clip_indices(np.array([0, 4]), frames=3, stride=2, num_frames=7).tolist()
        [[0, 2, 4], [4, 6, 6]]
        >>> times = np.arange(7) / 30
        >>> clip_indices(np.array([0]), frames=3, num_frames=7, rate=10, times=times).tolist()
        [[0, 3, 6]]
    """
    steps = np.arange(frames, dtype=np.int64)
    if rate is None:
        indices: NDArray[np.int64] = np.minimum(starts[:, None] + stride * steps, num_frames - 1)
        return indices
    shown = _of_frames(times, num_frames)
    at = shown[starts][:, None] + steps / rate
    return np.searchsorted(shown, at + MILLISECOND, side="right") - 1


def possible_starts(
    num_frames: int,
    *,
    steps: int,
    stride: int = 1,
    rate: float | None = None,
    times: NDArray[np.float64] | None = None,
) -> int:
    """Return at how many of the first frames a clip of ``steps`` steps fits; 1 if at none.

    A step is ``stride`` frames or, at a ``rate``, ``1 / rate`` seconds; see :func:`clip_indices`.

    Example:
        >>> possible_starts(10, steps=3, stride=2), possible_starts(5, steps=3, stride=2)
        (4, 1)
        >>> possible_starts(5, steps=3, rate=10, times=np.arange(5) / 8)
        2
    """
    if rate is None:
        return max(1, num_frames - steps * stride)
    shown = _of_frames(times, num_frames)
    fitting = shown + steps / rate <= shown[-1] + MILLISECOND
    return max(1, int(fitting.sum()))


def check_clips(*, rate: float | None, **least_one: int) -> None:
    """Check the arguments of a sampler of clips.

    Args:
        rate: above 0, or ``None``.
        least_one: numbers that must be at least 1.

    Raises:
        UserError: one is too small.

    Example:
        >>> check_clips(rate=None, stride=0)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: stride=0 must be at least 1
    """
    for name, value in least_one.items():
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    if rate is not None and not 0 < rate < np.inf:
        raise UserError(f"rate={rate} frames per second must be above 0, or null to use stride")


def _of_frames(times: NDArray[np.float64] | None, num_frames: int) -> NDArray[np.float64]:
    if times is None or len(times) < num_frames:
        given = 0 if times is None else len(times)
        raise ValueError(f"a rate needs the times of {num_frames} frames, and {given} are given")
    return times[:num_frames]
