"""Channels that look one frame ahead and one frame back."""

from __future__ import annotations

import torch
from torch import Tensor


def temporal_shift(x: Tensor, num_frames: int, *, divisions: int = 8) -> Tensor:
    """Give a share of the channels the next frame's values, and another the previous frame's.

    The first ``C // divisions`` channels take the next frame's values, as many after them the
    previous frame's; beyond the first and the last frame there are zeros (TSM).

    Args:
        x: maps of the frames of some videos, one video after another.
        num_frames: S, of each video.
        divisions: 8 shifts an eighth of the channels each way.

    Shape:
        ``(B * S, C, ...)``, the result is of the same shape

    Example:
        >>> x = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
        >>> temporal_shift(x, 2, divisions=3).tolist()
        [[2.0, 0.0, 100.0], [0.0, 10.0, 200.0]]
    """
    fold = x.shape[1] // divisions
    by_video = (-1, num_frames, *x.shape[1:])
    shifted = torch.zeros_like(x)
    videos, result = x.view(by_video), shifted.view(by_video)
    result[:, :-1, :fold] = videos[:, 1:, :fold]
    result[:, 1:, fold : 2 * fold] = videos[:, :-1, fold : 2 * fold]
    result[:, :, 2 * fold :] = videos[:, :, 2 * fold :]
    return shifted
