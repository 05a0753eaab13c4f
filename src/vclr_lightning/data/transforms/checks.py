"""Checks of a transform's arguments and clips."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STRONGEST = 10  # factor of a colour operation: far above anything useful, and within 16 bits


def number(name: str, value: Any, low: float, high: float) -> float:
    """Return ``value`` as a float in ``low..high``, or raise :class:`UserError`.

    Example:
        >>> number("flip_p", 1, 0, 1)
        1.0
    """
    if _is(Real, value) and low <= value <= high:
        return float(value)
    raise UserError(f"{name}={value!r} is not possible; give a number from {low:g} to {high:g}")


def pair(name: str, value: Any, *, above: float, high: float) -> tuple[float, float]:
    """Return ``value`` as a pair ``above < a <= b <= high``, or raise :class:`UserError`.

    Example:
        >>> pair("scale", [0.2, 1], above=0, high=1)
        (0.2, 1.0)
    """
    items = _items(value)
    if len(items) == 2 and all(_is(Real, item) for item in items):
        first, last = float(items[0]), float(items[1])
        if above < first <= last <= high and math.isfinite(last):
            return first, last
    limit = f" and at most {high:g}" if math.isfinite(high) else ""
    raise UserError(
        f"{name}={value!r} is not possible; "
        f"give two numbers, the smaller first, above {above:g}{limit}"
    )


def pixels(name: str, value: Any, *, low: int = 1) -> int:
    """Return ``value`` as a whole number of at least ``low``, or raise :class:`UserError`.

    Example:
        >>> pixels("size", 224)
        224
    """
    if _is(Integral, value) and value >= low:
        return int(value)
    raise UserError(f"{name}={value!r} is not possible; give a whole number of at least {low}")


def edges(name: str, value: Any) -> tuple[int, int]:
    """Return ``value`` as height and width in pixels, or raise :class:`UserError`.

    Example:
        >>> edges("stretch", [256, 340])
        (256, 340)
    """
    items = _items(value)
    if len(items) == 2:
        return pixels(name, items[0]), pixels(name, items[1])
    raise UserError(f"{name}={value!r} is not possible; give height and width in pixels")


def frame_size(clip: Sequence[NDArray[np.uint8]]) -> tuple[int, int]:
    """Return height and width of the frames of a clip.

    Raises:
        UserError: there are none, or they are no ``(H, W, 3)`` uint8 arrays.
        VideoError: the size changes within the clip.
    """
    if not clip:
        raise UserError("a clip of 0 frames cannot be transformed; give at least one")
    for frame in clip:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise UserError(
                f"a frame is {frame.dtype} {frame.shape}; give RGB frames (H, W, 3) of uint8"
            )
        if frame.shape != clip[0].shape:
            raise VideoError(f"the frame size changes, from {clip[0].shape} to {frame.shape}")
    height, width, _ = clip[0].shape
    return height, width


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []


def _is(kind: type, value: Any) -> bool:
    """Whether ``value`` is a number of this kind; booleans are not."""
    return isinstance(value, kind) and not isinstance(value, bool)
