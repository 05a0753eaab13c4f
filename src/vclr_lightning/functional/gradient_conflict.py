"""Whether losses pull shared weights into different directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
