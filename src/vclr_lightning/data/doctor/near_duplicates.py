"""Find videos that show the same: equal files, and re-encoded copies by their thumbnails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1024  # videos compared with all others at a time
_STILL = 2.0  # levels of 255 (root mean square), below which nothing moves but noise
_ALIKE = 0.94  # cosine of what changes over time, from which two videos show the same
_CLOSE = 3.0  # levels of 255 (root mean square) that pictures of a copy may differ by
_FLAT = 2.0  # levels; pictures with less contrast say nothing


class Alike(NamedTuple):
    """Videos that show the same.

    Attributes:
        members: positions of the videos, rising.
        exact: whether all of them are equal byte by byte.
    """

    members: tuple[int, ...]
    exact: bool


def find_alike(
    thumbnails: NDArray[np.uint8], digests: Sequence[str | None], lengths: NDArray[np.float64]
) -> list[Alike]:
    """Return the groups of videos that show the same.

    Two videos do if their files are equal; or if their thumbnails change over time in the same way
    (their cosine, each frame without its mean brightness and each place without its mean over
    time, is at least 0.94), and agree in the picture as well. What stands still, such as the
    background of a fixed camera, does not count, so that different takes in front of it are told
    apart; videos in which nothing moves are compared by their pictures alone. Sizes, codecs,
    qualities and frame rates may differ; cut, cropped or mirrored copies are not found. All pairs
    are compared exactly, as products of matrices: minutes for 100,000 videos.

    Args:
        thumbnails: of the same moments of each video, ``(n, frames, pixels)``.
        digests: hash of each file's content, where that was taken.
        lengths: seconds, NaN where unknown; copies have the same, within 5 % or half a second.

    Example:
        >>> moving = np.random.default_rng(0).integers(0, 256, (3, 5, 64)).astype(np.uint8)
        >>> moving[2] = 0.9 * moving[0]  # darker, but the same
        >>> find_alike(moving, [None] * 3, np.full(3, 9.0))
        [Alike(members=(0, 2), exact=False)]
    """
    parent = np.arange(len(digests))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    equal: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest is not None:
            equal[digest].append(i)
    for members in equal.values():
        parent[members] = members[0]
    for i, j in near_pairs(thumbnails, lengths):
        first, second = sorted((root(i), root(j)))
        parent[second] = first
    together: dict[int, list[int]] = defaultdict(list)
    for i in range(len(digests)):
        together[root(i)].append(i)
    return [
        Alike(tuple(members), digests[members[0]] is not None and _one(digests, members))
        for members in together.values()
        if len(members) > 1
    ]


def near_pairs(
    thumbnails: NDArray[np.uint8], lengths: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs ``i < j`` of videos whose thumbnails show the same; see :func:`find_alike`.

    Of a video with many copies not all pairs are given, but enough to connect them.
    """
    if len(thumbnails) < 2:
        return
    frames = thumbnails.astype(np.float32)
    pictures = frames - frames.mean(2, keepdims=True)
    changes = (pictures - pictures.mean(1, keepdims=True)).reshape(len(frames), -1)
    moving = np.sqrt((changes**2).mean(1)) >= _STILL
    flat = pictures.reshape(len(frames), -1)
    contrast = np.sqrt((flat**2).mean(1)) >= _FLAT
    for kind, values in ((moving, changes), (~moving & contrast, flat)):
        rows = np.flatnonzero(kind)
        still = values is flat
        unit = values[rows] / np.linalg.norm(values[rows], axis=1, keepdims=True)
        for begin in range(0, len(rows), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            cosines = unit[block] @ unit[begin:].T
            for a, b in zip(*np.nonzero(np.triu(cosines >= _ALIKE, 1)), strict=True):
                i, j = int(rows[begin + a]), int(rows[begin + b])
                if _same_length(lengths[i], lengths[j]) and _same_picture(
                    flat[i], flat[j], still=still
                ):
                    yield i, j


def _same_length(one: float, other: float) -> bool:
    """Whether two durations agree, or one of them is unknown."""
    return not abs(one - other) > max(0.5, 0.05 * max(one, other))


def _same_picture(one: NDArray[np.float32], other: NDArray[np.float32], *, still: bool) -> bool:
    """Whether pictures without their mean agree up to their contrast; strictly for still ones."""
    scale = float(one @ other) / max(float(other @ other), 1e-6)
    if not 0.5 < scale < 2:
        return False
    error = float(np.sqrt(((one - scale * other) ** 2).mean()))
    spread = float(np.sqrt((one**2).mean()))
    return error <= (_CLOSE if still else max(_CLOSE, 0.25 * spread))


def _one(digests: Sequence[str | None], members: Sequence[int]) -> bool:
    return len({digests[i] for i in members}) == 1
