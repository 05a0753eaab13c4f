"""Logistic regression by SGD, at many learning rates in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.core.random import torch_generator


@dataclass(frozen=True)
class LogisticHeads:
    """Linear classifiers, one for each of L learning rates."""

    weight: Tensor  # (L, classes, F)
    bias: Tensor  # (L, classes)

    def scores(self, features: Tensor) -> Tensor:
        """Return scores ``(L, N, classes)`` of features ``(N, F)``; not finite after divergence."""
        return features @ self.weight.mT + self.bias[:, None]


def fit_logistic(
    features: Tensor,
    targets: Tensor,
    *,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int = 50,
    batch_size: int = 256,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
    progress: Callable[[range], Iterable[int]] | None = None,
) -> LogisticHeads:
    """Train a linear classifier at each learning rate, on the same batches.

    All classifiers are one matrix, so a batch is multiplied once forward and once backward. SGD
    with momentum from zero weights, cosine schedule to zero; the bias has no weight decay.

    Args:
        features: one row per sample.
        targets: class of each row.
        num_classes: number of columns of the scores.
        learning_rates: one classifier each.
        epochs: passes over the rows.
        batch_size: rows per step.
        momentum: of SGD.
        weight_decay: of SGD.
        seed: of the order of the rows.
        progress: wraps the range of epochs, such as a progress bar.

    Shape: - features: ``(N, F)``; targets: ``(N,)`` in ``0 .. num_classes - 1``

    Example:
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> heads = fit_logistic(x, y, num_classes=2, learning_rates=[0.1, 1.0], epochs=20)
        >>> heads.scores(x).argmax(dim=2).tolist()
        [[0, 1, 0, 1], [0, 1, 0, 1]]
    """
    n, f = features.shape
    heads = len(learning_rates)
    rate = features.new_tensor(learning_rates).repeat_interleave(num_classes)  # (L classes,)
    weight = features.new_zeros(f, heads * num_classes)
    bias = features.new_zeros(heads * num_classes)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    generator = torch_generator(seed, "logistic")
    steps = epochs * math.ceil(n / batch_size)
    step = 0
    passes = range(epochs)
    for _ in passes if progress is None else progress(passes):
        order = torch.randperm(n, generator=generator).to(features.device)
        for rows in torch.split(order, batch_size):
            x = features[rows]
            scores = (x @ weight + bias).view(len(rows), heads, num_classes)
            slope = scores.softmax(dim=2)
            slope[torch.arange(len(rows), device=x.device), :, targets[rows]] -= 1
            slope = slope.flatten(1) / len(rows)  # of the mean cross-entropy, by score
            speed.mul_(momentum).add_(x.T @ slope).add_(weight, alpha=weight_decay)
            bias_speed.mul_(momentum).add_(slope.sum(dim=0))
            now = rate * (0.5 * (1 + math.cos(math.pi * step / steps)))
            weight.sub_(now * speed)
            bias.sub_(now * bias_speed)
            step += 1
    return LogisticHeads(
        weight=weight.T.reshape(heads, num_classes, f).contiguous(),
        bias=bias.view(heads, num_classes),
    )
