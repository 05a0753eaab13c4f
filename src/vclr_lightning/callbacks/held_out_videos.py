"""What the evaluation during training asks of a data module, and collects from all ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from vclr_lightning.core.distributed import gather_objects, rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.evaluation.encoders import Encode

logger = logging.getLogger(__name__)


def loader_of(data: Any, name: str) -> Callable[..., Any]:
    """Return the method of a data module that gives a loader.

    Raises:
        UserError: there is none.
    """
    method = getattr(data, name, None)
    if not callable(method):
        what = "no data module is given" if data is None else f"{type(data).__name__} has no {name}"
        raise UserError(f"{what}, which gives held-out videos")
    return cast(Callable[..., Any], method)


def encode_of(module: Any, given: Encode | None) -> Encode:
    """Return the given encoder of frames, or the module's own.

    Raises:
        UserError: there is neither.
    """
    encode = given or getattr(module, "encode", None)
    if not callable(encode):
        raise UserError(
            f"{type(module).__name__} has no method encode(frames), which the evaluation "
            "during training needs; add it, or give OnlineEvaluation an encode"
        )
    return cast(Encode, encode)


def drawn_rows(data: Any, split: str, *, limit: int | None, seed: int) -> dict[str, list[int]]:
    """Draw at most ``limit`` rows of a split, as an argument of its loader; empty for all."""
    videos = 0 if limit is None else len(data.manifest(split))
    if limit is None or limit >= videos:
        return {}
    if rank() == 0:
        logger.info(
            "evaluation during training: %d of %d videos of %s, drawn with seed %d",
            *(limit, videos, split, seed),
        )
    draw = numpy_generator(seed, "online evaluation", split)
    return {"rows": sorted(draw.choice(videos, limit, replace=False).tolist())}


def has_labels(table: Any, rows: Sequence[int] | None = None) -> bool:
    """Whether any row of a manifest, or of some of its rows, has a label."""
    return any(table.label(row) >= 0 for row in (range(len(table)) if rows is None else rows))


def gathered(own: list[Tensor]) -> list[Tensor]:
    """Concatenate each tensor over the ranks, in their order; a rank may have none.

    Raises:
        UserError: no rank has any.
    """
    if not (ranks := [parts for parts in gather_objects(own) if parts]):
        raise UserError("none of the held-out videos can be used: they cannot be read")
    return [torch.cat(parts) for parts in zip(*ranks, strict=True)]
