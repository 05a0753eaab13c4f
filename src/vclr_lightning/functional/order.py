"""Temporal order: shuffles of a tuple's frames, and the loss that recognises them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.precision import full, without_autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray

TupleNorm = Literal["channels", "frames"]
TimeChange = Literal["normal", "shuffled", "reversed", "frozen"]
TIME_CHANGES: tuple[TimeChange, ...] = get_args(TimeChange)

ORDER_CLASSES = 4
"""0 neither tuple is shuffled, 1 the anchor only, 2 the positive only, 3 both."""


def sample_shuffle(
    size: int, rng: np.random.Generator, *, exclude_reversal: bool = True
) -> NDArray[np.int64]:
    """Draw a shuffle of ``size`` positions, uniformly among those allowed (Section 3.2).

    A shuffle is never the identity, and from three positions on never the exact reversal either:
    a reversed action is often a plausible one. Two positions have only the swap; a single position
    has no shuffle, so the identity is returned.

    Args:
        size: number of positions, at least 1.
        rng: source of randomness.
        exclude_reversal: whether the exact reversal is excluded from three positions on.

    Shape: Returns ``(size,)`` int64.

    Example:
        >>> sample_shuffle(2, np.random.default_rng(0))
        array([1, 0])
    """
    identity = np.arange(size, dtype=np.int64)
    if size < 2:
        return identity
    while True:
        order = rng.permutation(size)
        if np.array_equal(order, identity):
            continue
        if exclude_reversal and size > 2 and np.array_equal(order, identity[::-1]):
            continue
        return order


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Permute or select the rows of each sample; position ``i`` gets row ``order[b, i]``.

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

    Shape: ``(B, S, D)`` to ``(B, S, D)``.

    Raises:
        UserError: ``over`` is neither.

    Example:
        >>> normalize_tuple(torch.tensor([[[3.0, 4.0], [0.0, 2.0]]]), "channels").norm(dim=2)
        tensor([[1., 1.]])
    """
    if over == "channels":
        return normalize(full(x), dim=-1)
    if over == "frames":
        return normalize(full(x), dim=1)
    raise UserError(f"normalize={over!r} of the order loss must be 'channels' or 'frames'")


def join_tuples(query: Tensor, key: Tensor, query_order: Tensor, key_order: Tensor) -> Tensor:
    """Concatenate the frames of both tuples, each in its own, possibly shuffled, order.

    Shape: ``query``, ``key``: ``(B, S, D)``; orders: ``(B, S)``; result ``(B, 2 S D)``.

    Example:
        >>> a, b = torch.tensor([[[1], [2]]]), torch.tensor([[[3], [4]]])
        >>> join_tuples(a, b, torch.tensor([[1, 0]]), torch.tensor([[0, 1]])).tolist()
        [[2, 1, 3, 4]]
    """
    return torch.cat([reorder(query, query_order), reorder(key, key_order)], dim=1).flatten(1)


def order_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over the four cases, in at least float32 (Section 3.3).

    Shape: ``logits``: ``(B, 4)``; ``label``: ``(B,)`` int64.

    Example:
        >>> f"{order_loss(torch.zeros(2, 4), torch.tensor([0, 3])).item():.4f}"  # log 4
        '1.3863'
    """
    with without_autocast(logits):
        return cross_entropy(full(logits), label)


def changed_in_time(clips: Tensor, change: TimeChange, *, order: Tensor) -> Tensor:
    """Return clips with the same frames in another order, or with a single one of them.

    Args:
        clips: of any type.
        change: ``"normal"``; ``"shuffled"`` as ``order`` says; ``"reversed"``; ``"frozen"``: the
            middle frame over and over.
        order: positions ``(B, T)`` of each clip's frames, such as of :func:`sample_shuffle`.

    Shape: ``(B, C, T, H, W)``

    Raises:
        UserError: the change is unknown.

    Example:
        >>> clip = torch.arange(3).view(1, 1, 3, 1, 1)
        >>> order = torch.tensor([[1, 2, 0]])
        >>> [changed_in_time(clip, c, order=order).flatten().tolist() for c in TIME_CHANGES]
        [[0, 1, 2], [1, 2, 0], [2, 1, 0], [1, 1, 1]]
    """
    if change not in TIME_CHANGES:
        raise UserError(f"{change!r} is no change in time; it must be of {', '.join(TIME_CHANGES)}")
    if change == "shuffled":
        return reorder(clips.transpose(1, 2), order).transpose(1, 2)
    if change == "frozen":
        return clips[:, :, clips.shape[2] // 2, None].expand_as(clips)
    return clips.flip(2) if change == "reversed" else clips
