"""Features of a whole video at a fixed number of positions."""

from __future__ import annotations

import torch
from torch import Tensor

_MARGIN = 1e-4  # of a snippet, left out at either end
_POINTS = 3  # averaged at each position


def resample_snippets(features: Tensor, positions: int = 100) -> Tensor:
    """Bring features of m snippets to ``positions`` positions along the video, linearly.

    With a = (m - 1 - 2e-4) / positions, position i is the mean of the linear interpolation at
    1e-4 + (i + j / 3) a, j = 0, 1, 2; a single snippet is repeated. This is what temporal action
    localisation takes (Section 4.4 of the paper).

    Args:
        features: of the snippets of one video, in order; m at least 1.
        positions: how many are wanted.

    Shape:
        ``(m, F)`` to ``(positions, F)``

    Example:
        >>> [f"{x:.3f}" for x in resample_snippets(torch.tensor([[0.0], [6.0]]), 3)[:, 0]]
        ['0.667', '2.667', '4.666']
    """
    m = len(features)
    if m == 1:
        return features.expand(positions, -1).clone()
    step = (m - 1 - 2 * _MARGIN) / positions
    points = torch.arange(positions * _POINTS, dtype=torch.float64, device=features.device)
    points = _MARGIN + points / _POINTS * step  # (positions * 3,)
    left = points.floor().long().clamp(max=m - 2)
    share = (points - left)[:, None].to(features.dtype)
    sampled = torch.lerp(features[left], features[left + 1], share)
    return sampled.view(positions, _POINTS, -1).mean(dim=1)
