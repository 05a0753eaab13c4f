"""What callbacks watch in training: conflicts of gradients, and what a queue of keys holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vclr_lightning.functional.precision import full, without_autocast


class Conflict(NamedTuple):
    """Norms of gradients ``(L,)``, and their cosines ``(L, L)``."""

    norms: Tensor
    cosines: Tensor


def gradient_conflict(gradients: Tensor) -> Conflict:
    """Return the norms of the gradients of L losses and the cosines between them.

    A negative cosine is a conflict: a step for one loss raises the other (Yu et al., "Gradient
    surgery for multi-task learning", 2020, Definition 1). It is 0 with a gradient of zeros.

    Shape: ``(L, P)``, of P weights

    Example:
        >>> conflict = gradient_conflict(torch.tensor([[3.0, 4.0], [-6.0, -8.0], [0.0, 0.0]]))
        >>> conflict.norms.tolist(), conflict.cosines[0].tolist()
        ([5.0, 10.0, 0.0], [1.0, -1.0, 0.0])
    """
    gradients = full(gradients)
    norms = torch.linalg.vector_norm(gradients, dim=1)
    unit = gradients / norms.clamp_min(torch.finfo(gradients.dtype).tiny)[:, None]
    with without_autocast(unit):
        return Conflict(norms, (unit @ unit.T).clamp(-1, 1))


def mean_similarity(keys: Tensor) -> Tensor:
    """Return the mean cosine of all pairs of different rows ``(K, D)``; near 1 after a collapse.

    Example:
        >>> mean_similarity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
        tensor(0.3333)
    """
    unit = normalize(full(keys), dim=1)
    # Of unit vectors, the sum over pairs follows from the length of their sum.
    squares = unit.square().sum()
    return (unit.sum(dim=0).square().sum() - squares) / max(1, len(keys) * (len(keys) - 1))


def stale_share(ids: Tensor, inserted_at: Tensor) -> Tensor:
    """Return the share of keys whose video has a newer key: negatives of an outdated encoder.

    Args:
        ids: of the keys' videos.
        inserted_at: step at which each key was added; negative for rows without a key.

    Shape: ``(K,)`` both; returns ``()``

    Example:
        >>> stale_share(torch.tensor([7, 7, 8, -1]), torch.tensor([0, 5, 5, -1]))
        tensor(0.3333)
    """
    filled = inserted_at >= 0
    ids, inserted_at = ids[filled], inserted_at[filled]
    if not len(ids):
        return torch.zeros((), device=ids.device)
    _, video = torch.unique(ids, return_inverse=True)
    newest = inserted_at.new_full((int(video.max()) + 1,), -1)
    newest.scatter_reduce_(0, video, inserted_at, "amax")
    return (inserted_at < newest[video]).float().mean()
