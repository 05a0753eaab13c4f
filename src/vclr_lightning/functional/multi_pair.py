"""Contrastive loss of queries with several positives each, every pair by itself (VINCE)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vclr_lightning.functional.contrastive import NegativeSummary
from vclr_lightning.functional.precision import full, without_autocast


class MultiPair(NamedTuple):
    """The loss of all positive pairs, and scalars that describe it, these detached."""

    loss: Tensor  # mean over the pairs, with gradient
    pairs: Tensor  # number of pairs
    top1: Tensor  # share of the pairs that are above each of their query's negatives
    positive: Tensor  # mean logit of the pairs
    negative: Tensor  # mean logit of the negatives: of the further ones, where there are any


def multi_pair_nce(
    query: Tensor,
    candidates: Tensor,
    positive: Tensor,
    *,
    temperature: float,
    further: NegativeSummary | None = None,
) -> MultiPair:
    """Contrast every positive pair with all negatives of its query.

    ``positive[i, p]`` says that candidate ``p`` is a positive of query ``i``, otherwise it is one
    of its negatives. With ``s_ij = q_i c_j / t``, the loss is the mean over **all** positive pairs
    of

        ``-log(exp(s_ip) / (exp(s_ip) + sum over the negatives j of exp(s_ij)))``,

    so no positive is in the denominator of another (Gordon et al. 2020, multi-frame multi-pair).
    The gradient flows to the queries and to the candidates. Computed in at least float32.

    Args:
        query: unit vectors.
        candidates: unit vectors, positives and negatives.
        positive: which pairs are positive.
        temperature: divides every similarity.
        further: negatives of all queries beside the candidates, such as a queue's, summarised.

    Shape:
        ``query``: ``(N, D)``; ``candidates``: ``(M, D)``; ``positive``: ``(N, M)`` bool.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
        >>> out = multi_pair_nce(x, x, same, temperature=1.0)
        >>> f"{out.loss.item():.4f}"  # 4 times -log(e / (e + 1)), once -log(e / (e + 1 + 1))
        '0.3609'
    """
    with without_autocast(query):
        query, candidates = full(query), full(candidates)
        logits = query @ candidates.T / temperature  # (N, M)
        # Not -inf, whose gradient is not a number where a query has no negative at all.
        lowest = torch.finfo(logits.dtype).min
        log_sum = logits.masked_fill(positive, lowest).logsumexp(1)
        if further is not None:
            log_sum = torch.logaddexp(log_sum, further.log_sum)
        # -log(e^p / (e^p + sum)) = -logsigmoid(p - log sum)
        losses = -logsigmoid(logits - log_sum[:, None])
        pairs = positive.sum()
        with torch.no_grad():
            negatives = logits.masked_fill(positive, lowest)
            hardest = negatives.amax(1)
            if further is None:
                negative = logits.masked_fill(positive, 0).sum() / (~positive).sum().clamp_min(1)
            else:
                hardest, negative = torch.maximum(hardest, further.hardest), further.mean.mean()
            hits = (logits > hardest[:, None]) & positive
            mean = logits.masked_fill(~positive, 0).sum() / pairs
        loss = losses.masked_fill(~positive, 0).sum() / pairs
        return MultiPair(loss, pairs, hits.sum() / pairs, mean, negative)
