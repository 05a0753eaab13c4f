"""Held-out videos of any data module, measured by all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from vclr_lightning.core.distributed import gather_objects
from vclr_lightning.core.errors import UserError


def loader_of(data: Any, name: str) -> Callable[..., Any]:
    """Return a data module's method that gives loaders.

    Raises:
        UserError: there is no data module, or it has no such method.
    """
    method = getattr(data, name, None)
    if not callable(method):
        what = "no data module is given" if data is None else f"{type(data).__name__} has no {name}"
        raise UserError(f"{what}, which gives held-out videos")
    return cast(Callable[..., Any], method)


def gather(own: list[Tensor]) -> list[Tensor]:
    """Concatenate each tensor over all ranks, in their order; a rank may have nothing.

    Raises:
        UserError: no rank has anything.
    """
    ranks = [parts for parts in gather_objects(own) if parts]
    if not ranks:
        raise UserError(
            "none of the held-out videos can be used for the evaluation during training: they "
            "cannot be read, or have no label"
        )
    return [torch.cat(parts) for parts in zip(*ranks, strict=True)]
