"""Find videos that show the same: equal files, and re-encoded copies by their thumbnails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1024  # videos compared with all others at a time
_AT_ONCE = 65536  # pairs whose pictures are compared at a time
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
    if not len(digests):
        return []
    first: dict[str, int] = {}
    equal = [
        (first.setdefault(digest, i), i) for i, digest in enumerate(digests) if digest is not None
    ]
    pairs = np.concatenate(
        [np.array(equal, np.int64).reshape(-1, 2), near_pairs(thumbnails, lengths)]
    )
    together: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(connected(pairs, len(digests)).tolist()):
        together[label].append(i)
    return [
        Alike(tuple(members), digests[members[0]] is not None and _one(digests, members))
        for members in together.values()
        if len(members) > 1
    ]


def connected(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return for each of ``count`` nodes the first one that ``pairs`` ``(n, 2)`` connect it with.

    Example:
        >>> connected(np.array([[0, 2], [3, 4], [4, 2]]), 6)
        array([0, 1, 0, 0, 0, 5])
    """
    labels = np.arange(count)
    while True:
        one, other = labels[pairs].T
        before, low = labels.copy(), np.minimum(one, other)
        np.minimum.at(labels, one, low)
        np.minimum.at(labels, other, low)
        while (labels[labels] != labels).any():
            labels = labels[labels]
        if (labels == before).all():
            return labels


def near_pairs(thumbnails: NDArray[np.uint8], lengths: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return pairs ``i < j`` of videos whose thumbnails show the same, ``(pairs, 2)``.

    See :func:`find_alike`. Of videos with equal thumbnails the first one stands for all.
    """
    frames = thumbnails.astype(np.float32)
    pictures = frames - frames.mean(2, keepdims=True)
    changes = (pictures - pictures.mean(1, keepdims=True)).reshape(len(frames), -1)
    moving = np.sqrt((changes**2).mean(1)) >= _STILL
    flat = pictures.reshape(len(frames), -1)
    contrast = np.sqrt((flat**2).mean(1)) >= _FLAT
    found = [np.empty((0, 2), np.int64)]
    for kind, values in ((moving, changes), (~moving & contrast, flat)):
        rows = np.flatnonzero(kind)
        if len(rows) < 2:
            continue
        rows, copies = _representatives(rows, thumbnails, lengths)
        found.append(copies)
        unit = values[rows] / np.linalg.norm(values[rows], axis=1, keepdims=True)
        for begin in range(0, len(rows), _BLOCK):
            cosines = unit[begin : begin + _BLOCK] @ unit[begin:].T
            pairs = rows[begin + np.argwhere(np.triu(cosines >= _ALIKE, 1))]
            for part in np.array_split(pairs, -(-len(pairs) // _AT_ONCE) or 1):
                i, j = part.T
                agree = _same_length(lengths[i], lengths[j])
                agree &= _same_picture(flat[i], flat[j], still=values is flat)
                found.append(part[agree])
    return np.concatenate(found)


def _representatives(
    rows: NDArray[np.int64], thumbnails: NDArray[np.uint8], lengths: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return one row of each set of equal thumbnails and lengths, and pairs with the others."""
    halves = np.nan_to_num(2 * lengths[rows], nan=-1).astype(np.int64)  # of a second
    content = thumbnails[rows].reshape(len(rows), -1)
    keys = np.concatenate([content, halves[:, None].view(np.uint8)], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    pairs = np.stack([rows[first[inverse.ravel()]], rows], 1)
    return rows[np.sort(first)], pairs[pairs[:, 0] < pairs[:, 1]]


def _same_length(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether durations agree, or one of them is unknown."""
    return ~(np.abs(one - other) > np.maximum(0.5, 0.05 * np.maximum(one, other)))


def _same_picture(
    one: NDArray[np.float32], other: NDArray[np.float32], *, still: bool
) -> NDArray[np.bool_]:
    """Whether pictures without their mean agree up to their contrast; strictly for still ones."""
    scale = (one * other).sum(1) / np.maximum((other**2).sum(1), 1e-6)
    error = np.sqrt(((one - scale[:, None] * other) ** 2).mean(1))
    spread = np.sqrt((one**2).mean(1))
    allowed = np.full_like(error, _CLOSE) if still else np.maximum(_CLOSE, 0.25 * spread)
    agree: NDArray[np.bool_] = (scale > 0.5) & (scale < 2) & (error <= allowed)
    return agree


def _one(digests: Sequence[str | None], members: Sequence[int]) -> bool:
    return len({digests[i] for i in members}) == 1
