"""Projection heads: from the backbone's features to an embedding, thrown away after pretraining."""

from __future__ import annotations

import math

from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import momentum_copy


def projection_head(num_features: int, embedding_dim: int) -> nn.Sequential:
    """Return ``Linear(F, F) -> ReLU -> Linear(F, D)``, the head of every loss.

    The embedding is not normalised; each loss does that in its own way.

    Shape:
        ``(..., F)`` to ``(..., D)``.

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
    """Return ``temperature``.

    Raises:
        UserError: it is not positive, or infinite.
    """
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature} must be positive and finite")
    return temperature
