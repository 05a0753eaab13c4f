"""Intervals of mean scores by resampling groups of videos (the cluster bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator

_DRAWS = 2**22  # group numbers in memory at a time

Interval = tuple[float, float]
"""Lower and upper end."""


def bootstrap_interval(
    scores: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    *,
    classes: Sequence[Any] | NDArray[Any] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of a mean score, from resampled groups.

    Clips of one source succeed or fail together, so resampling videos one by one would give too
    short an interval. Each replicate draws as many groups as there are, with replacement, and
    takes the mean over all videos of those drawn: sum_g w_g s_g / sum_g w_g n_g, with s_g the
    sum of the scores of a group's n_g videos and w_g how often it was drawn (Davison and Hinkley,
    *Bootstrap Methods and Their Application*, 1997, sections 3.8 and 5.3). With fewer than about
    ten groups the interval is too short, and of scores that are all equal it is a point.

    Args:
        scores: of each video, such as 1 where its class was predicted and 0 elsewhere.
        groups: number or name of each video's group.
        classes: of each video; with these, the mean over the classes of their means.
        replicates: B.
        level: share of the replicates within the interval.
        seed: of a generator of its own.

    Shape: - scores, groups, classes: ``(N,)``

    Raises:
        UserError: there are fewer than two groups, the lengths differ, or an option is out of its
            range.

    Example:
        >>> right = [1, 1, 1, 0, 0, 1, 1, 0]
        >>> low, high = bootstrap_interval(right, [0, 0, 1, 1, 2, 2, 3, 3])
        >>> low, high
        (0.5, 0.875)
    """
    means = _replicates([scores], groups, classes, replicates, level, seed)
    return _percentiles(means[:, 0], level)


def paired_interval(
    scores: ArrayLike,
    others: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    *,
    classes: Sequence[Any] | NDArray[Any] | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the interval of the difference of two mean scores of the same videos.

    Both means are taken over the same resampled groups, so that what makes videos easy or hard
    for both cancels out. Where the interval holds 0, no difference is measured.

    Args:
        scores: of each video.
        others: of the same videos in the same order; may be means over several networks.
        groups: see :func:`bootstrap_interval`, as for the other arguments.
        classes: likewise.
        replicates: likewise.
        level: likewise.
        seed: likewise.

    Shape: - scores, others, groups, classes: ``(N,)``

    Raises:
        UserError: see :func:`bootstrap_interval`.

    Example:
        >>> paired_interval([1, 1, 1, 0], [0, 0, 0, 0], ["a", "a", "b", "c"])
        (0.0, 1.0)
    """
    means = _replicates([scores, others], groups, classes, replicates, level, seed)
    return _percentiles(means[:, 0] - means[:, 1], level)


def _replicates(
    columns: Sequence[ArrayLike],
    groups: Sequence[Any] | NDArray[Any],
    classes: Sequence[Any] | NDArray[Any] | None,
    replicates: int,
    level: float,
    seed: int,
) -> NDArray[np.float64]:
    """Return the mean of each column in each replicate, ``(replicates, columns)``."""
    scores = [np.asarray(column, dtype=np.float64) for column in columns]
    # As words, so that groups read from a file give the same draws as their numbers do.
    names, group = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    kind = np.zeros(len(group), dtype=np.int64)
    if classes is not None:
        kind = np.unique(np.asarray(classes), return_inverse=True)[1]
    if len({len(one) for one in (*scores, group, kind)}) > 1:
        raise UserError(
            f"{' and '.join(str(len(one)) for one in scores)} scores of {len(group)} videos of "
            f"{len(kind)} classes are none of the same videos; give one of each for each video"
        )
    if len(names) < 2:
        raise UserError(
            f"an interval needs videos of two or more groups, and these are of {len(names)}"
        )
    if replicates < 1 or not 0 < level < 1:
        raise UserError(
            f"replicates={replicates} must be at least 1, and level={level} between 0 and 1"
        )

    def totals(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        cells = group * (kind.max() + 1) + kind
        size = len(names) * (kind.max() + 1)
        found = np.bincount(cells, values, size).reshape(len(names), -1)  # (G, C)
        return found.astype(np.float64)

    number = totals(None)
    sums = [totals(one) for one in scores]
    rng = numpy_generator(seed, "bootstrap")
    found = []
    step = max(1, _DRAWS // len(names))
    for first in range(0, replicates, step):
        rows = min(step, replicates - first)
        drawn = rng.integers(len(names), size=(rows, len(names)))
        cells = drawn + len(names) * np.arange(rows)[:, None]
        times = np.bincount(cells.ravel(), minlength=drawn.size).reshape(rows, -1)  # (b, G)
        weight = times.astype(np.float64)
        videos = weight @ number  # (b, C); a class may not be drawn
        there = videos > 0
        means = [
            (np.divide(weight @ one, videos, where=there, out=np.zeros_like(videos))).sum(1)
            / there.sum(1)
            for one in sums
        ]
        found.append(np.stack(means, axis=1))
    return np.concatenate(found)


def _percentiles(values: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
