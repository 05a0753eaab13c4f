"""Draw the scenes and frames of a synthetic video."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.data.synthetic.actions import Floats, Shape, distance

_LUMA = np.array([0.3, 0.59, 0.11])
_WAVES = 3
_FRAMES_PER_SCENE = (2, 5)
_HOLD = (0.2, 0.38)
_EBB, _FLOOD = (-0.05, 0.1), (0.5, 0.7)  # the water's level as an action begins and ends
_DRY = -1.0


class Scene(NamedTuple):
    """What changes at a cut: background, colours, place, size and motion.

    Attributes:
        dark: one colour of the background's texture, ``(3,)``, 0 to 1.
        light: the other.
        color: the object's colour.
        water: the water's colour.
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
    water: NDArray[np.float64]
    waves: NDArray[np.float64]
    sharpness: float
    place: NDArray[np.float64]
    velocity: NDArray[np.float64]
    turn: float
    spin: float
    size: float
    shape: Shape


def draw_scene(rng: np.random.Generator, *, contrast: float) -> Scene:
    """Draw a scene whose background has a texture of this ``contrast``, 0 to 1.

    Example:
        >>> draw_scene(np.random.default_rng(0), contrast=0.2).shape.lobes in range(2, 7)
        True
    """
    colors = rng.uniform(0, 1, (2, 3))
    middle = colors.mean(0)
    dark, light = middle + (colors - middle) * contrast
    color = rng.uniform(0, 1, 3)
    while abs((color - middle) @ _LUMA) < 0.3:  # invisible if as bright as the background
        color = rng.uniform(0, 1, 3)
    water = rng.uniform(0, 1, 3)
    while min(abs((water - other) @ _LUMA) for other in (middle, color)) < 0.15:
        water = rng.uniform(0, 1, 3)
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
        water=water,
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
    """Return the background ``frame`` frames after the cut, ``(H, W, 3)``."""
    waves = scene.waves.astype(np.float32)
    texture = sum(
        np.cos(across * x + down * y + phase + drift * frame)
        for across, down, phase, drift in waves.T
    )
    mix = 0.5 + 0.5 * np.tanh(scene.sharpness * texture / 1.7)[..., None]
    picture: Floats = (scene.dark + (scene.light - scene.dark) * mix).astype(np.float32)
    return picture


def object_frame(scene: Scene, frame: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return every pixel's position relative to the object, in object sizes, ``(H, W)`` each."""
    across = x - np.float32(scene.place[0] + scene.velocity[0] * frame)
    down = y - np.float32(scene.place[1] + scene.velocity[1] * frame)
    angle = scene.turn + scene.spin * frame
    c, s = np.float32(np.cos(angle) / scene.size), np.float32(np.sin(angle) / scene.size)
    return c * across + s * down, c * down - s * across


def draw_progress(rng: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    """Draw when an action happens: 0 for a while, then up to 1, then 1 for a while.

    Shape:
        Returns ``(num_frames,)``.

    Example:
        >>> progress = draw_progress(np.random.default_rng(0), 10)
        >>> float(progress[0]), float(progress[-1]), bool((np.diff(progress) >= 0).all())
        (0.0, 1.0, True)
    """
    begin, end = rng.uniform(*_HOLD), 1 - rng.uniform(*_HOLD)
    time = np.linspace(0, 1, num_frames)
    linear = np.clip((time - begin) / (end - begin), 0, 1)
    smooth: NDArray[np.float64] = linear * linear * (3 - 2 * linear)
    return smooth


def draw_levels(acting: Sequence[bool], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the level of the water: it rises evenly while something happens, else there is none.

    Args:
        acting: whether each frame shows an action.
        rng: source of randomness.

    Returns:
        The share of each frame's height that is under water, below 0 where there is none.

    Example:
        >>> levels = draw_levels([True, True, False], np.random.default_rng(0))
        >>> bool(levels[0] < 0.1 < 0.5 < levels[1]), float(levels[2])
        (True, -1.0)
    """
    spans = [(shown, len(list(frames))) for shown, frames in groupby(acting)]
    return np.concatenate(
        [
            np.linspace(rng.uniform(*_EBB), rng.uniform(*_FLOOD), n) if shown else np.full(n, _DRY)
            for shown, n in spans
        ]
    )


def render(
    steps: Sequence[tuple[str, float] | None],
    rng: np.random.Generator,
    *,
    size: int,
    contrast: float,
) -> NDArray[np.uint8]:
    """Draw one frame per step: an action and its progress, or ``None`` for an empty scene.

    Every few frames the video cuts to another scene: background, colours, place, size and outline
    of the object are drawn again. Two moments of one video share nothing but the action. During an
    action, water rises behind the object: a single frame shows when it is, not what happens.

    Shape:
        Returns ``(len(steps), size, size, 3)`` uint8, RGB.

    Example:
        >>> frames = render(
        ...     [("grow", 0.0), ("grow", 1.0)], np.random.default_rng(0), size=32, contrast=0.2
        ... )
        >>> frames.shape, frames.dtype
        ((2, 32, 32, 3), dtype('uint8'))
    """
    x, y = grid(size)
    frames = np.empty((len(steps), size, size, 3), np.uint8)
    left = age = 0
    scene = draw_scene(rng, contrast=contrast)
    levels = draw_levels([step is not None for step in steps], rng)
    for i, (step, level) in enumerate(zip(steps, levels, strict=True)):
        if left == 0:
            scene = draw_scene(rng, contrast=contrast)
            left, age = int(rng.integers(*_FRAMES_PER_SCENE, endpoint=True)), 0
        picture = background(scene, age, x, y)
        below = np.clip(0.5 + (y - 1 + 2 * np.float32(level)) * (0.45 * size), 0, 1)[..., None]
        picture = picture + below * (scene.water.astype(np.float32) - picture)
        if step is not None:
            u, v = object_frame(scene, age, x, y)
            outside = distance(*step, u, v, scene.shape) * np.float32(scene.size)
            # One pixel of blur along the outline.
            cover = np.clip(0.5 - outside * (0.45 * size), 0, 1)[..., None]
            picture = picture + cover * (scene.color.astype(np.float32) - picture)
        frames[i] = np.clip(picture * 255 + 0.5, 0, 255)
        left -= 1
        age += 1
    return frames
