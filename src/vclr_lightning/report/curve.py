"""Curves of any length, as what a screen can show of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

Point = tuple[float, float]  # step and value

_MOST = 512  # groups of neighbouring points; a chart is some 300 pixels wide


class Curve:
    """Points in order, of which is kept what can be seen: memory and time stay bounded.

    Up to 512 points are kept as they are. Of more, groups of neighbours are kept by their lowest,
    highest and average value at their average step. What is not finite is left out. Iterating a
    curve gives the points to draw.

    Example:
        >>> list(Curve([(0, 2.0), (10, 1.0)]))
        [(0.0, 2.0), (10.0, 1.0)]
        >>> long = list(Curve((step, float(step == 70_001)) for step in range(100_000)))
        >>> len(long) <= 1024, max(value for _, value in long)
        (True, 1.0)
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._sums = np.empty((0, 3))  # of steps and values, and how many
        self._low = self._high = np.empty(0)
        self.extend(points)

    def extend(self, points: Iterable[Point]) -> None:
        """Add points that come after those there are."""
        given = points if isinstance(points, np.ndarray) else [*points]
        new = np.array(given, dtype=np.float64).reshape(-1, 2)
        new = new[np.isfinite(new).all(axis=1)]
        if not len(new):
            return
        sums = np.vstack([self._sums, np.column_stack([new, np.ones(len(new))])])
        firsts = sums[:, 2].cumsum() - sums[:, 2]
        # A power of two, so that groups that there are lie within those that they become.
        each = 2 ** max(0, math.ceil(math.log2((firsts[-1] + 1) / _MOST)))
        starts = np.flatnonzero(np.diff(firsts // each, prepend=-1))
        self._sums = np.add.reduceat(sums, starts)
        self._low = np.minimum.reduceat(np.append(self._low, new[:, 1]), starts)
        self._high = np.maximum.reduceat(np.append(self._high, new[:, 1]), starts)

    def __iter__(self) -> Iterator[Point]:
        steps = self._sums[:, 0] / self._sums[:, 2]
        for step, *ends in zip(*(a.tolist() for a in (steps, self._low, self._high)), strict=True):
            yield from ((step, value) for value in sorted({*ends}))

    def average(self) -> list[Point]:
        """Average each value with its neighbours, a twentieth of the points, fewer at the ends.

        Example:
            >>> Curve((step, float(step % 2)) for step in range(100)).average()[50]
            (50.0, 0.4)
        """
        steps, values, counts = self._sums.T
        ends = counts.cumsum()
        starts, middles = ends - counts, ends - counts / 2
        half = (int(counts.sum()) // 20 | 1) / 2
        windows = zip(
            np.searchsorted(ends, middles - half, side="right"),
            np.searchsorted(starts, middles + half),
            strict=True,
        )
        means = [float(values[a:b].sum() / counts[a:b].sum()) for a, b in windows]
        return list(zip((steps / counts).tolist(), means, strict=True))
