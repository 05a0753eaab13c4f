"""Projection heads, used in pretraining only, and checks shared by the objectives."""

from __future__ import annotations

import math

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import momentum_copy


def projection_head(num_features: int, embedding_dim: int) -> nn.Sequential:
    """Return ``Linear(F, F) -> ReLU -> Linear(F, D)``, the head of every loss.

    The embedding is not normalised; that is part of each loss.

    Shape: ``(..., F)`` to ``(..., D)``.

    Raises:
        UserError: a size is not positive.

    Example:
        >>> import torch
        >>> projection_head(8, 4)(torch.zeros(2, 3, 8)).shape
        torch.Size([2, 3, 4])
    """
    if num_features < 1 or embedding_dim < 1:
        raise UserError(
            f"num_features={num_features} and embedding_dim={embedding_dim} of a head "
            "must be positive"
        )
    return nn.Sequential(
        nn.Linear(num_features, num_features),
        nn.ReLU(inplace=True),
        nn.Linear(num_features, embedding_dim),
    )


def projection_heads(num_features: int, embedding_dim: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Return a query head and its momentum copy."""
    head = projection_head(num_features, embedding_dim)
    return head, momentum_copy(head)


def check_temperature(temperature: float) -> float:
    """Return ``temperature``, or raise a :class:`UserError` unless it is positive and finite."""
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature} must be positive and finite")
    return temperature


def check_num_segments(num_segments: int) -> int:
    """Return ``num_segments``, or raise a :class:`UserError` if it is below 1."""
    if num_segments < 1:
        raise UserError(f"num_segments={num_segments} must be at least 1")
    return num_segments


def check_tuple(features: Tensor, num_segments: int, objective: str) -> None:
    """Raise a :class:`UserError` unless tuples ``(B, S, F)`` have ``num_segments`` clips."""
    if features.shape[1] != num_segments:
        raise UserError(
            f"the data gives tuples of {features.shape[1]} clips, but num_segments of {objective} "
            f"is {num_segments}; set both to the same number"
        )
