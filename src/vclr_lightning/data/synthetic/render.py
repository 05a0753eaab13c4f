"""Draw the frames of a synthetic video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.data.synthetic.actions import distance
from vclr_lightning.data.synthetic.scenes import background, draw_scene, grid, object_frame

_FRAMES_PER_SCENE = (2, 5)
_HOLD = (0.2, 0.38)


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


def render(
    steps: Sequence[tuple[str, float] | None],
    rng: np.random.Generator,
    *,
    size: int,
    contrast: float,
) -> NDArray[np.uint8]:
    """Draw one frame per step: an action and its progress, or ``None`` for an empty scene.

    Every few frames the video cuts to another scene: background, colours, place, size and outline
    of the object are drawn anew. Two moments of one video share nothing but the action.

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
    for i, step in enumerate(steps):
        if left == 0:
            scene = draw_scene(rng, contrast=contrast)
            left, age = int(rng.integers(*_FRAMES_PER_SCENE, endpoint=True)), 0
        picture = background(scene, age, x, y)
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
