"""One score per class from several views of a video."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vclr_lightning.core.errors import UserError

Averaging = Literal["logits", "probabilities"]


def average_views(logits: Tensor, *, averaging: Averaging = "logits") -> Tensor:
    """Average the scores of a video's views.

    Args:
        logits: of each view.
        averaging: ``"logits"``: these are averaged; ``"probabilities"``: their softmax is.

    Shape:
        ``(B, views, classes)`` to ``(B, classes)``

    Raises:
        UserError: there is no such way.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 4.0], [1.0, 0.0]]])
        >>> average_views(logits)
        tensor([[0.5000, 2.0000]])
        >>> average_views(logits, averaging="probabilities").sum()
        tensor(1.)
    """
    if averaging not in ("logits", "probabilities"):
        raise UserError(f"averaging={averaging!r} of scores must be logits or probabilities")
    views = logits.softmax(dim=2) if averaging == "probabilities" else logits
    return views.mean(dim=1)
