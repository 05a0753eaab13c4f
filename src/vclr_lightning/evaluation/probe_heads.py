"""Classifiers of frozen features that are trained beside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from vclr_lightning.core.errors import UserError


class LinearHead(nn.Module):
    """A linear classifier of features, each sample scaled to mean 0 and variance 1.

    The scaling has no parameters; with it one learning rate suits layers of any scale. Weights
    start at zero.

    Shape: ``(N, F)`` to ``(N, classes)``

    Example:
        >>> LinearHead(4, 3)(torch.randn(2, 4)).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.linear(layer_norm(features, features.shape[-1:]))
        return scores


class BatchNormHead(nn.Sequential):
    """BatchNorm with scale and shift, then a linear classifier: CoCLR's (Han et al. 2020).

    The classifier's weights start normal with standard deviation 0.01, its biases at 0.

    Args:
        num_features: F.
        num_classes: number of columns of the scores.
        generator: draws the weights; ``None``: torch's own.

    Shape: ``(N, F)`` to ``(N, classes)``

    Example:
        >>> BatchNormHead(4, 3)(torch.randn(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, num_features: int, num_classes: int, *, generator: torch.Generator | None = None
    ) -> None:
        linear = nn.Linear(num_features, num_classes)
        nn.init.normal_(linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.BatchNorm1d(num_features), linear)


class AttentiveHead(LinearHead):
    """A classifier of tokens: one learned query attends to them, then :class:`LinearHead`.

    The cross-attention by which V-JEPA's frozen features are evaluated (Bardes et al., "Revisiting
    feature prediction for learning visual representations from video", 2024, Section 4.1),
    without its MLP.

    Args:
        num_features: F.
        num_classes: number of columns of the scores.
        heads: of the attention; divides F.

    Shape: ``(N, T, F)`` to ``(N, classes)``

    Raises:
        UserError: ``heads`` does not divide F.

    Example:
        >>> AttentiveHead(4, 3, heads=2)(torch.randn(2, 7, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_features: int, num_classes: int, *, heads: int = 1) -> None:
        super().__init__(num_features, num_classes)
        if heads < 1 or num_features % heads:
            raise UserError(f"heads={heads} of the probe must divide its {num_features} features")
        self.query = nn.Parameter(torch.randn(num_features) * num_features**-0.5)
        self.attention = nn.MultiheadAttention(num_features, heads, batch_first=True)

    def forward(self, features: Tensor) -> Tensor:
        tokens = layer_norm(features, features.shape[-1:])
        query = self.query.expand(len(tokens), 1, -1)
        return super().forward(self.attention(query, tokens, tokens, need_weights=False)[0][:, 0])
