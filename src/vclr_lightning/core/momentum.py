"""The momentum (key) encoder: a copy that follows by an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """Return a copy of ``module`` that never gets a gradient.

    Example:
        >>> key = momentum_copy(nn.Linear(2, 2))
        >>> any(p.requires_grad for p in key.parameters())
        False
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def momentum_update(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Set ``key <- momentum * key + (1 - momentum) * query`` in place for all (query, key) modules.

    Parameters only, all at once: buffers, such as BatchNorm's statistics, stay the key encoder's.

    Example:
        >>> query, key = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> momentum_update([(query, key)], 0.0)
        >>> bool((query.weight == key.weight).all())
        True
    """
    modules = list(pairs)
    queries: list[Tensor] = [p for query, _ in modules for p in query.parameters()]
    keys: list[Tensor] = [p for _, key in modules for p in key.parameters()]
    if keys:
        torch._foreach_lerp_(keys, queries, 1 - momentum)
