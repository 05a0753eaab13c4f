"""Features that need no learning: what any network has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vclr_lightning.evaluation.encoders import Encode


def mean_colour(frames: Tensor) -> Tensor:
    """Return the mean colour of each frame, in 0 to 1.

    Shape:
        ``(M, C, T, H, W)`` uint8 to ``(M, C)``

    Example:
        >>> mean_colour(torch.full((2, 3, 1, 4, 4), 51, dtype=torch.uint8))[0].tolist()
        [0.20000000298023224, 0.20000000298023224, 0.20000000298023224]
    """
    return frames.float().mean(dim=(2, 3, 4)) / 255


def mean_frame(frames: Tensor, *, size: int = 16) -> Tensor:
    """Return each frame at ``size`` x ``size``, without its mean colour.

    Shape:
        ``(M, C, T, H, W)`` uint8 to ``(M, C * size * size)``
    """
    small = adaptive_avg_pool2d(frames.float().mean(dim=2) / 255, size)  # (M, C, size, size)
    return (small - small.mean(dim=(2, 3), keepdim=True)).flatten(1)


def motion_map(frames: Tensor, *, size: int = 16) -> Tensor:
    """Return where the grey values change from the frame before, at ``size`` x ``size``.

    Takes all frames of one video, in order; the first one's map is zero.

    Shape:
        ``(m, C, T, H, W)`` uint8 to ``(m, size * size)``
    """
    grey = frames.float().mean(dim=(1, 2)) / 255  # (m, H, W)
    change = torch.zeros_like(grey)
    change[1:] = grey.diff(dim=0).abs()
    return adaptive_avg_pool2d(change[:, None], size).flatten(1)


motion_map.whole_videos = True  # type: ignore[attr-defined]  # needs each video's frames in order

TRIVIAL: Mapping[str, Encode] = {
    "mean colour": mean_colour,
    "mean frame": mean_frame,
    "mean motion map": motion_map,
}
"""Encoders for :func:`~vclr_lightning.evaluation.features.extract_each`, by name."""
