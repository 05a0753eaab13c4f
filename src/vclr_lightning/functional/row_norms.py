"""Rows of any magnitude, brought to where float32 can take their norms."""

from __future__ import annotations

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError

_SAFE = 1e-12, 1e12  # norms whose squares and products float32 holds without loss


def divisors(rows: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return what each row is to be divided by, and 1 / norm of the row that this gives.

    Args:
        rows: features, of any dtype.
        what: to call them in a message.

    Returns:
        1, or the row's largest magnitude where float32 needs it, in float64 where the rows are and
        in float32 otherwise; and 1 / norm, float32, 0 for rows of zeros.

    Shape:
        ``(N, F)`` to ``(N,)`` and ``(N,)``

    Raises:
        UserError: a value is not finite.

    Example:
        >>> divisor, inverse = divisors(torch.tensor([[3.0, 4.0], [0.0, 1e-30], [0, 0]]), "query")
        >>> divisor.tolist(), inverse.tolist()
        ([1.0, 1.0000000031710769e-30, 1.0], [0.20000000298023224, 1.0, 0.0])
    """
    norms = torch.linalg.vector_norm(rows.float(), dim=1)
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    found = torch.ones(len(rows), dtype=wide, device=rows.device)
    odd = ((norms < _SAFE[0]) | ~(norms < _SAFE[1])).nonzero()[:, 0]
    if len(odd):
        some = rows[odd]
        if bad := int((~some.isfinite()).any(dim=1).sum()):
            raise UserError(
                f"{bad} rows of the {what} features are not finite; see whether the weights that "
                "made them are, and extract the features again"
            )
        largest = some.to(wide).abs().amax(dim=1)
        found[odd] = torch.where(largest > 0, largest, 1)
        norms[odd] = torch.linalg.vector_norm(divided(some, found[odd]), dim=1)
    return found, torch.where(norms > 0, 1 / norms, 0.0)


def divided(rows: Tensor, divisor: Tensor) -> Tensor:
    """Return rows in float32, divided by what :func:`divisors` gave.

    Shape:
        ``(N, F)`` and ``(N,)`` to ``(N, F)``
    """
    if bool((divisor == 1).all()):
        return rows.float()
    return (rows.to(divisor.dtype) / divisor[:, None]).float()
