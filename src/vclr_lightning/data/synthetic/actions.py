"""The eight actions: how an object changes from one state to another.

Each state occurs in four actions, so no single frame identifies the action. ``grow`` and
``shrink``, and ``split`` and ``join``, reverse each other and pass through the same states, so they
differ in order only; the other four differ in the set of states, which an average over time shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Shape(NamedTuple):
    """The outline of an object: a circle with ``lobes`` bumps of relative height ``bump``."""

    lobes: int
    bump: float
    turn: float


def _blob(x: Floats, y: Floats, shape: Shape, radius: float) -> Floats:
    """Return the approximate distance of each point to the outline, negative inside."""
    outline = 1 + shape.bump * np.cos(shape.lobes * np.arctan2(y, x) + shape.turn)
    distance: Floats = (np.hypot(x, y) - radius * outline).astype(np.float32)
    return distance


def _small(x: Floats, y: Floats, shape: Shape) -> Floats:
    return _blob(x, y, shape, 0.32)


def _large(x: Floats, y: Floats, shape: Shape) -> Floats:
    return _blob(x, y, shape, 0.85)


def _pair(x: Floats, y: Floats, shape: Shape) -> Floats:
    return np.minimum(_blob(x - 0.55, y, shape, 0.38), _blob(x + 0.55, y, shape, 0.38))


def _ring(x: Floats, y: Floats, shape: Shape) -> Floats:
    return np.abs(_blob(x, y, shape, 0.62)) - np.float32(0.15)


State = Callable[[Floats, Floats, Shape], Floats]

STATES: dict[str, State] = {"small": _small, "large": _large, "pair": _pair, "ring": _ring}

ACTIONS: dict[str, tuple[str, str]] = {
    "grow": ("small", "large"),
    "shrink": ("large", "small"),
    "split": ("ring", "pair"),
    "join": ("pair", "ring"),
    "divide": ("small", "pair"),
    "merge": ("pair", "large"),
    "hollow": ("large", "ring"),
    "collapse": ("ring", "small"),
}
"""State before and after each action."""


def distance(action: str, progress: float, x: Floats, y: Floats, shape: Shape) -> Floats:
    """Return the distance of each point from the object's outline, negative inside.

    Args:
        action: a key of :data:`ACTIONS`.
        progress: 0 before the action, 1 after it.
        x: horizontal position, in object sizes from its centre.
        y: vertical position.
        shape: the object's outline.

    Shape:
        ``x``, ``y``: ``(H, W)``; returns ``(H, W)``.

    Example:
        >>> x = y = np.zeros((1, 1), np.float32)
        >>> shape = Shape(lobes=3, bump=0.0, turn=0.0)
        >>> [round(float(distance("grow", p, x, y, shape)[0, 0]), 2) for p in (0.0, 1.0)]
        [-0.32, -0.85]
    """
    before, after = (STATES[name] for name in ACTIONS[action])
    if progress <= 0:
        return before(x, y, shape)
    if progress >= 1:
        return after(x, y, shape)
    weight = np.float32(progress)
    return (1 - weight) * before(x, y, shape) + weight * after(x, y, shape)
