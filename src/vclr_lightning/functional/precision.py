"""Full precision for losses, whatever the trainer's precision."""

from __future__ import annotations

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """Return ``x`` in at least float32: half precisions are widened, float64 stays.

    Example:
        >>> full(torch.zeros(2, dtype=torch.bfloat16)).dtype, full(torch.zeros(2).double()).dtype
        (torch.float32, torch.float64)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> torch.autocast:
    """Return a context in which no operation on ``x``'s device is autocast.

    Example:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), without_autocast(x):
        ...     (x @ x).dtype
        torch.float32
    """
    return torch.autocast(x.device.type, enabled=False)
