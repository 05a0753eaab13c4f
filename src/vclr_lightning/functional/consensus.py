"""Consensus: one feature vector for a tuple of frames."""

from __future__ import annotations

from torch import Tensor


def average(features: Tensor) -> Tensor:
    """Average over the segments: the paper's consensus (Section 3.2).

    Shape:
        ``(B, S, F)`` to ``(B, F)``.

    Example:
        >>> import torch
        >>> average(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])).tolist()
        [[2.0, 4.0]]
    """
    return features.mean(1)


def maximum(features: Tensor) -> Tensor:
    """Take each channel's largest value over the segments.

    Shape:
        ``(B, S, F)`` to ``(B, F)``.

    Example:
        >>> import torch
        >>> maximum(torch.tensor([[[1.0, 7.0], [3.0, 6.0]]])).tolist()
        [[3.0, 7.0]]
    """
    return features.amax(1)
