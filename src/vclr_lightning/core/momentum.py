"""The momentum (key) encoder: a copy that follows by an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
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
def copy_state(query: nn.Module, key: nn.Module) -> None:
    """Copy parameters and buffers of ``query`` into ``key``, in place."""
    key.load_state_dict(query.state_dict())


def paired_parameters(
    pairs: Iterable[tuple[nn.Module, nn.Module]],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters of all (query, key) module pairs as two aligned lists."""
    modules = list(pairs)
    query = [p.detach() for followed, _ in modules for p in followed.parameters()]
    key = [p.detach() for _, follower in modules for p in follower.parameters()]
    return query, key


@torch.no_grad()
def momentum_update(query: Sequence[Tensor], key: Sequence[Tensor], momentum: float) -> None:
    """Set ``key <- momentum * key + (1 - momentum) * query`` in place, all tensors at once.

    Parameters only: buffers, such as BatchNorm's statistics, stay the key encoder's own.

    Example:
        >>> key = [torch.zeros(2)]
        >>> momentum_update([torch.ones(2)], key, 0.75)
        >>> key[0].tolist()
        [0.25, 0.25]
    """
    if key:
        torch._foreach_lerp_(list(key), list(query), 1 - momentum)
