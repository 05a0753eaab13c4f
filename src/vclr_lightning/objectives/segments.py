"""Checks of the number of segments, shared by the objectives that read whole tuples."""

from __future__ import annotations

from torch import Tensor

from vclr_lightning.core.errors import UserError


def check_num_segments(num_segments: int) -> int:
    """Return ``num_segments``.

    Raises:
        UserError: it is below 1.
    """
    if num_segments < 1:
        raise UserError(f"num_segments={num_segments} must be at least 1")
    return num_segments


def check_tuple(features: Tensor, num_segments: int, objective: str) -> None:
    """Compare the clips of a tuple, ``(B, S, F)``, with the objective's number of segments.

    Raises:
        UserError: they differ.
    """
    if features.shape[1] != num_segments:
        raise UserError(
            f"the data gives tuples of {features.shape[1]} clips, but num_segments of {objective} "
            f"is {num_segments}; set both to the same number"
        )
