"""What a scene looks like apart from the action: background, colours, place, size and motion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.data.synthetic.actions import Floats, Shape

_LUMA = np.array([0.3, 0.59, 0.11])
_WAVES = 3


class Scene(NamedTuple):
    """Everything that is drawn anew at a cut.

    Attributes:
        dark: one colour of the background's texture, ``(3,)``, 0 to 1.
        light: the other.
        color: the object's colour.
        waves: horizontal and vertical frequency, phase and drift of each wave, ``(4, 3)``.
        sharpness: 0.5 for soft waves, larger for bands.
        place: the object's centre, -1 to 1.
        velocity: its motion per frame.
        turn: its angle in radians.
        spin: its turn per frame.
        size: its half width.
        shape: its outline.
    """

    dark: NDArray[np.float64]
    light: NDArray[np.float64]
    color: NDArray[np.float64]
    waves: NDArray[np.float64]
    sharpness: float
    place: NDArray[np.float64]
    velocity: NDArray[np.float64]
    turn: float
    spin: float
    size: float
    shape: Shape


def draw_scene(rng: np.random.Generator, *, contrast: float) -> Scene:
    """Draw a scene; ``contrast`` (0 to 1) is how much the background's texture shows.

    Example:
        >>> draw_scene(np.random.default_rng(0), contrast=0.2).shape.lobes in range(2, 7)
        True
    """
    colors = rng.uniform(0, 1, (2, 3))
    middle = colors.mean(0)
    dark, light = middle + (colors - middle) * contrast
    color = rng.uniform(0, 1, 3)
    while abs((color - middle) @ _LUMA) < 0.3:  # an object as bright as its background is lost
        color = rng.uniform(0, 1, 3)
    frequency, angle = rng.uniform(1.5, 9, _WAVES), rng.uniform(0, np.pi, _WAVES)
    waves = np.stack(
        [
            np.pi * frequency * np.cos(angle),
            np.pi * frequency * np.sin(angle),
            rng.uniform(0, 2 * np.pi, _WAVES),
            rng.normal(0, 0.3, _WAVES),
        ]
    )
    return Scene(
        dark=dark,
        light=light,
        color=color,
        waves=waves,
        sharpness=float(rng.choice([0.5, 2.0, 8.0])),
        place=rng.uniform(-0.28, 0.28, 2),
        velocity=rng.normal(0, 0.015, 2),
        turn=rng.uniform(0, 2 * np.pi),
        spin=rng.normal(0, 0.05),
        size=0.62 * rng.uniform(0.85, 1.15),
        shape=Shape(
            lobes=int(rng.integers(2, 7)), bump=rng.uniform(0, 0.25), turn=rng.uniform(0, 2 * np.pi)
        ),
    )


def grid(size: int) -> tuple[Floats, Floats]:
    """Return the horizontal and vertical position of every pixel, -1 to 1, ``(H, W)`` each."""
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    vertical, horizontal = np.meshgrid(axis, axis, indexing="ij")
    return horizontal, vertical


def background(scene: Scene, frame: int, x: Floats, y: Floats) -> Floats:
    """Return the picture behind the object, ``frame`` frames after the cut, ``(H, W, 3)``."""
    waves = scene.waves.astype(np.float32)
    texture = sum(
        np.cos(across * x + down * y + phase + drift * frame)
        for across, down, phase, drift in waves.T
    )
    mix = 0.5 + 0.5 * np.tanh(scene.sharpness * texture / 1.7)[..., None]
    picture: Floats = (scene.dark + (scene.light - scene.dark) * mix).astype(np.float32)
    return picture


def object_frame(scene: Scene, frame: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return every pixel's position as the object sees it, in object sizes, ``(H, W)`` each."""
    across = x - np.float32(scene.place[0] + scene.velocity[0] * frame)
    down = y - np.float32(scene.place[1] + scene.velocity[1] * frame)
    angle = scene.turn + scene.spin * frame
    c, s = np.float32(np.cos(angle) / scene.size), np.float32(np.sin(angle) / scene.size)
    return c * across + s * down, c * down - s * across
