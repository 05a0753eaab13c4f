"""Contrastive losses whose candidates are few enough to be compared at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vclr_lightning.functional.contrastive import Contrast, NegativeSummary, contrast_of
from vclr_lightning.functional.precision import full, without_autocast


def nt_xent(
    rows: Tensor,
    candidates: Tensor,
    *,
    positive: Tensor,
    itself: Tensor,
    temperature: float,
) -> Contrast:
    """NT-Xent of one direction: find the other view of each row among all embeddings.

    ``mean over i of -log(exp(z_i . z_p / t) / sum over j != i of exp(z_i . z_j / t))``, where j
    runs over the embeddings of both views of all videos, ``p`` is the row's other view, and the row
    itself alone is left out (Chen et al., "A simple framework for contrastive learning of visual
    representations", ICML 2020, Section 2.1). The gradient flows to both sides.

    Args:
        rows: unit vectors.
        candidates: unit vectors of both views, of the batch of all processes.
        positive: which candidate is each row's other view.
        itself: which candidate is the row itself.
        temperature: divides every similarity.

    Shape:
        ``rows``: ``(B, D)``; ``candidates``: ``(N, D)``; ``positive``, ``itself``: ``(B,)`` int64.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # two views of two
        >>> own = torch.arange(2)
        >>> out = nt_xent(x[:2], x, positive=own + 2, itself=own, temperature=1.0)
        >>> f"{out.loss.item():.4f}"  # -log(e / (e + 1 + 1))
        '0.5514'
    """
    with without_autocast(rows):
        logits = full(rows) @ full(candidates).T / temperature  # (B, N)
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        loss = cross_entropy(logits, positive)
        with torch.no_grad():
            own = logits.gather(1, positive[:, None])
            others = logits.scatter(1, positive[:, None], -torch.inf)
            mean = others.masked_fill(others.isinf(), 0).sum(1) / max(1, logits.shape[1] - 2)
        return Contrast(loss, own, others.amax(1), mean)


def sampled_nce(
    query: Tensor, positive: Tensor, bank: Tensor, drawn: Tensor, *, temperature: float
) -> Contrast:
    """InfoNCE whose negatives are rows of a bank, drawn for each query.

    ``mean over i of -log(exp(q_i . p_i / t) / (exp(q_i . p_i / t) + sum over k of
    exp(q_i . bank[drawn_ik] / t)))``, some queries at a time. A drawn row counts as often as it is
    drawn, even if it is the positive, as in the memory bank of CMC (Tian et al., "Contrastive
    multiview coding", ECCV 2020). The gradient flows to the queries alone.

    Args:
        query: unit vectors.
        positive: of each query.
        bank: rows, not necessarily of length 1.
        drawn: rows of the negatives.
        temperature: divides every similarity.

    Shape:
        ``query``, ``positive``: ``(B, D)``; ``bank``: ``(n, D)``; ``drawn``: ``(B, K)`` int64.

    Example:
        >>> query, bank = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> out = sampled_nce(query, bank[1:], bank, torch.tensor([[0, 0]]), temperature=1.0)
        >>> f"{out.loss.item():.4f}"  # -log(e / (e + 1 + 1))
        '0.5514'
    """
    with without_autocast(query):
        query, positive, bank = full(query), full(positive.detach()), full(bank.detach())
        own = (query * positive).sum(1, keepdim=True) / temperature
        parts = []
        with torch.no_grad():
            at_once = max(1, _VALUES_AT_ONCE // max(1, drawn.shape[1] * bank.shape[1]))
            for few, rows in zip(
                torch.split(query, at_once), torch.split(drawn, at_once), strict=True
            ):
                negatives = bank[rows]  # (b, K, D)
                logits = torch.einsum("bd,bkd->bk", few, negatives) / temperature
                pull = torch.einsum("bk,bkd->bd", logits.softmax(1), negatives) / temperature
                parts.append((logits.logsumexp(1), pull, logits.amax(1), logits.mean(1)))
        log_sum, pull, hardest, mean = (torch.cat(part) for part in zip(*parts, strict=True))
        # The value of log_sum, with its gradient, which is pull: the rows are not kept for it.
        log_sum = log_sum + ((query - query.detach()) * pull).sum(1)
        return contrast_of(own, NegativeSummary(log_sum, hardest, mean))


_VALUES_AT_ONCE = 2**24
