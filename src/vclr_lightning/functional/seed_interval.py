"""Differences over seeds: Student's interval of paired runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def student_quantile(level: float, freedom: int) -> float:
    r"""Return t with P(\|T\| <= t) = ``level`` for Student's T.

    With theta = atan(t / sqrt(n)), n degrees of freedom, the probability is a finite series in
    sin(theta) and cos(theta) (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3
    and 26.7.4), which is inverted by bisection.

    Args:
        level: in 0 to 1.
        freedom: n, 1 or more.

    Example:
        >>> round(student_quantile(0.95, 2), 3)
        4.303
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        theta = (low + high) / 2
        if _within(theta, freedom) < level:
            low = theta
        else:
            high = theta
    return math.sqrt(freedom) * math.tan(low)


def _within(theta: float, freedom: int) -> float:
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def seed_interval(
    values: Sequence[float], others: Sequence[float], *, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean difference of paired runs and its interval over seeds.

    Student's interval of the differences d: mean(d) ± t sd(d) / sqrt(n). It says what other seeds
    would give on the same videos, not what other videos would. Of a single pair it is unbounded.

    Args:
        values: of one arm, one of each seed.
        others: of the other with the same seeds.
        level: of the interval.

    Returns:
        The difference, lower end, upper end.

    Example:
        >>> [round(x, 3) for x in seed_interval([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])]
        [0.2, -0.048, 0.448]
    """
    pairs = [value - other for value, other in zip(values, others, strict=True)]
    middle = fmean(pairs)
    if len(pairs) < 2:
        return middle, -math.inf, math.inf
    half = student_quantile(level, len(pairs) - 1) * stdev(pairs) / math.sqrt(len(pairs))
    return middle, middle - half, middle + half
