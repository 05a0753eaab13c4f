"""Contrastive losses: noise-contrastive estimation against a queue, or within one video."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.negatives import NegativeTerms, negative_terms
from vclr_lightning.functional.precision import full, without_autocast

IntraForm = Literal["joint", "pairwise"]


class Contrast(NamedTuple):
    """A contrastive loss and what it was computed from.

    Attributes:
        loss: scalar, with gradient to the queries.
        positive: logits of the positives, ``(B, P)``, detached.
        hardest: each query's largest negative logit, ``(B,)``, detached.
        negative: each query's mean negative logit, ``(B,)``, detached.
    """

    loss: Tensor
    positive: Tensor
    hardest: Tensor
    negative: Tensor


def unit(x: Tensor) -> Tensor:
    """L2-normalise the last dimension, in at least float32.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    return normalize(full(x), dim=-1)


def queue_nce(
    query: Tensor,
    positives: Tensor,
    queue: Tensor,
    *,
    temperature: float,
    own_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> Contrast:
    """Contrast each query's positives, one at a time, with the rows of a queue (Section 3.1).

    The positives of one query never stand in one another's denominator. Computed in at least
    float32 with autocast off; the gradient flows to ``query`` alone.

    Args:
        query: unit vectors.
        positives: unit vectors, ``P`` for each query.
        queue: the negatives, before this step's keys enter.
        temperature: divides every similarity.
        own_ids: id of each query's video; with ``queue_ids``, rows of the same id are left out.
        queue_ids: id of each row's video.

    Shape:
        ``query``: ``(B, D)``; ``positives``: ``(B, P, D)``; ``queue``: ``(K, D)``;
        ``own_ids``: ``(B,)``; ``queue_ids``: ``(K,)``.

    Example:
        >>> query = unit(torch.tensor([[1.0, 0.0]]))
        >>> queue = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
        >>> out = queue_nce(query, query[:, None], queue, temperature=1.0)
        >>> f"{out.loss.item():.4f}"  # -log(e / (e + 1 + 1))
        '0.5514'
    """
    with without_autocast(query):
        query, positives = full(query), full(positives.detach())
        positive = torch.einsum("bd,bpd->bp", query, positives) / temperature
        terms = negative_terms(
            query, queue, temperature=temperature, own_ids=own_ids, queue_ids=queue_ids
        )
        return _contrast(positive, terms)


def intra_nce(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    form: IntraForm = "joint",
) -> Contrast:
    """Contrast the second view of a frame with other frames of its video (Section 3.1).

    Args:
        query: unit vectors of the anchor frame.
        positive: unit vectors of its second view.
        negatives: unit vectors of ``N`` other frames of the same video, nothing else.
        temperature: divides every similarity.
        form: ``"joint"`` is one softmax over the positive and all negatives (the paper);
            ``"pairwise"`` one softmax per negative, averaged (the released code).

    Shape:
        ``query``, ``positive``: ``(B, D)``; ``negatives``: ``(B, N, D)``.

    Raises:
        UserError: ``form`` is neither.

    Example:
        >>> q = torch.tensor([[1.0, 0.0]])
        >>> n = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]])
        >>> f"{intra_nce(q, q, n, temperature=1.0).loss.item():.4f}"  # -log(e / (e + 1 + 1))
        '0.5514'
        >>> f"{intra_nce(q, q, n, temperature=1.0, form='pairwise').loss.item():.4f}"
        '0.3133'
    """
    with without_autocast(query):
        query, positive, negatives = full(query), full(positive.detach()), full(negatives.detach())
        same = (query * positive).sum(-1, keepdim=True) / temperature  # (B, 1)
        others = torch.einsum("bd,bnd->bn", query, negatives) / temperature  # (B, N)
        if form == "joint":
            log_sum = others.logsumexp(-1)
        elif form == "pairwise":
            log_sum = others
        else:
            raise UserError(f"form={form!r} of the intra-frame loss must be 'joint' or 'pairwise'")
        hardest, mean = others.detach().amax(-1), others.detach().mean(-1)
        return _contrast(same, NegativeTerms(log_sum, hardest, mean))


def _contrast(positive: Tensor, terms: NegativeTerms) -> Contrast:
    log_sum = terms.log_sum if terms.log_sum.dim() == 2 else terms.log_sum[:, None]
    # -log(e^p / (e^p + sum)) = -logsigmoid(p - log sum): no (K + 1)-wide tensor.
    loss = -logsigmoid(positive - log_sum).mean()
    return Contrast(loss, positive.detach(), terms.hardest, terms.mean)
