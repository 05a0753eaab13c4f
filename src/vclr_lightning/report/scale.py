"""Axes: round numbers, and positions between them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear map of ``low .. high`` to the pixels ``start .. end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value.

        Example:
            >>> Scale(0, 10, 100, 200)(5)
            150.0
        """
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """Return about ``count`` round numbers that enclose ``low .. high``.

    Example:
        >>> ticks(0, 87)
        [0.0, 25.0, 50.0, 75.0, 100.0]
        >>> ticks(0.31, 0.58)
        [0.3, 0.4, 0.5, 0.6]
    """
    if high - low < 1e-300:  # none, or too little to divide
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def tick_text(value: float, *, percent: bool = False) -> str:
    """Return a number as short as it can be told.

    Example:
        >>> tick_text(2000), tick_text(7.5e6), tick_text(0.25, percent=True), tick_text(-1.5)
        ('2k', '7.5M', '25%', '-1.5')
    """
    if percent:
        return f"{100 * value:.3g}%"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 1000:
        return f"{value / 1000:.3g}k"
    return f"{value:.3g}"
