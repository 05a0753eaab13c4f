"""The temporal-order loss: tell which of two tuples has its frames shuffled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.precision import full, without_autocast

TupleNorm = Literal["channels", "frames"]

ORDER_CLASSES = 4
"""0 neither tuple is shuffled, 1 the anchor only, 2 the positive only, 3 both."""


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Put the rows of each sample into its own order; position ``i`` gets row ``order[b, i]``.

    Shape:
        ``x``: ``(B, n, ...)``; ``order``: ``(B, r)`` positions along ``n``; result ``(B, r, ...)``.

    Example:
        >>> reorder(torch.tensor([[10, 20, 30]]), torch.tensor([[2, 0, 1]])).tolist()
        [[30, 10, 20]]
    """
    return x[torch.arange(len(x), device=x.device)[:, None], order]


def normalize_tuple(x: Tensor, over: TupleNorm) -> Tensor:
    """L2-normalise the embeddings of a tuple, in at least float32.

    Args:
        x: embeddings of the frames of each tuple.
        over: ``"channels"``: each frame's vector has norm 1 (the paper); ``"frames"``: each
            channel has norm 1 over the frames (the released code).

    Shape:
        ``(B, S, D)`` to ``(B, S, D)``.

    Raises:
        UserError: ``over`` is neither.

    Example:
        >>> x = torch.tensor([[[3.0, 4.0], [4.0, 3.0]]])
        >>> [[f"{v:.1f}" for v in row] for row in normalize_tuple(x, "channels")[0].tolist()]
        [['0.6', '0.8'], ['0.8', '0.6']]
        >>> [[f"{v:.1f}" for v in row] for row in normalize_tuple(x, "frames")[0].tolist()]
        [['0.6', '0.8'], ['0.8', '0.6']]
    """
    if over == "channels":
        return normalize(full(x), dim=-1)
    if over == "frames":
        return normalize(full(x), dim=1)
    raise UserError(f"normalize={over!r} of the order loss must be 'channels' or 'frames'")


def join_tuples(query: Tensor, key: Tensor, query_order: Tensor, key_order: Tensor) -> Tensor:
    """Concatenate the frames of both tuples, each in its own, possibly shuffled, order.

    Shape:
        ``query``, ``key``: ``(B, S, D)``; orders: ``(B, S)``; result ``(B, 2 S D)``.

    Example:
        >>> a, b = torch.tensor([[[1], [2]]]), torch.tensor([[[3], [4]]])
        >>> join_tuples(a, b, torch.tensor([[1, 0]]), torch.tensor([[0, 1]])).tolist()
        [[2, 1, 3, 4]]
    """
    return torch.cat([reorder(query, query_order), reorder(key, key_order)], dim=1).flatten(1)


def order_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the four cases, in at least float32 (Section 3.3).

    Shape:
        ``logits``: ``(B, 4)``; ``label``: ``(B,)`` int64.

    Example:
        >>> f"{order_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item():.4f}"  # log 4
        '1.3863'
    """
    with without_autocast(logits):
        return cross_entropy(full(logits), label)
