"""Contrastive losses: InfoNCE against a queue of keys, or within one video."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.precision import full, without_autocast

IntraForm = Literal["joint", "pairwise"]

# Logits held at a time: few enough for a CPU's cache, enough to occupy an accelerator.
_LOGITS_AT_ONCE = {"cpu": 2**20}
_LOGITS_AT_ONCE_ELSEWHERE = 2**22


class Contrast(NamedTuple):
    """A contrastive loss and the logits it was computed from, these detached."""

    loss: Tensor  # scalar, with gradient to the queries
    positive: Tensor  # (B, P), logits of the positives
    hardest: Tensor  # (B,), each query's largest negative logit
    negative: Tensor  # (B,), each query's mean negative logit


class NegativeSummary(NamedTuple):
    """The logits of each query's negatives, reduced."""

    log_sum: Tensor  # (B,), log of the sum of exp(logit), with gradient; -inf without negatives
    hardest: Tensor  # (B,), the largest logit; -inf without negatives
    mean: Tensor  # (B,), the mean logit; 0 without negatives


def unit(x: Tensor) -> Tensor:
    """L2-normalise the last dimension, in at least float32.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    return normalize(full(x), dim=-1)


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE, the definition: the mean of -log(exp(q.k / t) / (exp(q.k / t) + sum exp(q.n / t))).

    Training computes the same by :func:`queue_nce`, without holding ``B x K`` logits.

    Shape: ``query``, ``positive``: ``(B, D)``; ``negatives``: ``(K, D)``; returns a scalar.

    Example:
        >>> query, negatives = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
        >>> f"{info_nce(query, query, negatives, temperature=1.0).item():.4f}"
        '0.5514'
    """
    positive_logits = (query * positive).sum(dim=1, keepdim=True)  # (B, 1)
    negative_logits = query @ negatives.T  # (B, K)
    logits = torch.cat([positive_logits, negative_logits], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()


def summarize_negatives(
    query: Tensor,
    queue: Tensor,
    *,
    temperature: float,
    own_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> NegativeSummary:
    """Reduce the logits of ``query`` with all rows of ``queue`` in one pass over blocks of rows.

    The gradient to the queries is computed in the same pass, so neither direction holds ``B x K``
    or ``K x D`` values, and the queue may be overwritten before the backward pass. With ids, rows
    of the query's own id are left out.

    Shape:
        ``query``: ``(B, D)``; ``queue``: ``(K, D)``; ``own_ids``: ``(B,)``;
        ``queue_ids``: ``(K,)``.

    Example:
        >>> x, ids = torch.eye(2), torch.tensor([0, 1])
        >>> summary = summarize_negatives(x, x, temperature=1.0)
        >>> [f"{value:.4f}" for value in summary.log_sum.tolist()]  # log(e + 1)
        ['1.3133', '1.3133']
        >>> masked = summarize_negatives(x, x, temperature=1.0, own_ids=ids, queue_ids=ids)
        >>> masked.log_sum.tolist()  # log(1)
        [0.0, 0.0]
    """
    return NegativeSummary(
        *_SummarizeNegatives.apply(query, queue.detach(), temperature, own_ids, queue_ids)
    )


class _SummarizeNegatives(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        queue: Tensor,
        temperature: float,
        own_ids: Tensor | None,
        queue_ids: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        with without_autocast(query):
            scaled = full(query) / temperature
            batch = len(scaled)
            peak = scaled.new_full((batch,), -torch.inf)
            total = scaled.new_zeros(batch)  # sum of exp(logit - peak)
            mean = scaled.new_zeros(batch)
            count = scaled.new_zeros(batch)
            pull = torch.zeros_like(scaled)  # sum of exp(logit - peak) * row
            step = _rows_at_once(batch, queue)
            for start in range(0, len(queue), step):
                rows = queue[start : start + step].to(scaled.dtype)
                logits = scaled @ rows.T  # (B, k)
                if own_ids is None or queue_ids is None:
                    mean += logits.sum(-1)
                    count += logits.shape[-1]
                else:
                    own = own_ids[:, None] == queue_ids[None, start : start + step]
                    mean += logits.masked_fill_(own, 0).sum(-1)
                    count += logits.shape[-1] - own.sum(-1)
                    logits.masked_fill_(own, -torch.inf)
                new_peak = torch.maximum(peak, logits.amax(-1))
                base = new_peak.masked_fill(new_peak == -torch.inf, 0)  # only own rows so far
                weights = logits.sub_(base[:, None]).exp_()
                shrink = (peak - base).exp()
                total = total * shrink + weights.sum(-1)
                if ctx.needs_input_grad[0]:
                    pull = torch.addmm(pull * shrink[:, None], weights, rows)
                peak = new_peak
            log_sum = torch.log(total) + peak.masked_fill(peak == -torch.inf, 0)
            total = total.clamp_min(torch.finfo(total.dtype).tiny)
            ctx.save_for_backward(pull / total[:, None] / temperature)
            ctx.query_dtype = query.dtype
            mean = mean / count.clamp_min(1)
            ctx.mark_non_differentiable(peak, mean)
            return log_sum, peak, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_unused: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad[:, None] * slope).to(ctx.query_dtype), None, None, None, None


def _rows_at_once(batch: int, queue: Tensor) -> int:
    budget = _LOGITS_AT_ONCE.get(queue.device.type, _LOGITS_AT_ONCE_ELSEWHERE)
    return max(1, min(budget, queue.numel() // 2) // max(batch, queue.shape[1]))


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

    This is :func:`info_nce` averaged over the positives; the positives of a query never appear in
    one another's denominator. Computed in at least float32 with autocast off; the gradient flows
    to ``query`` alone.

    Args:
        query: unit vectors.
        positives: unit vectors, ``P`` for each query.
        queue: the negatives, before this step's keys are added.
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
        negatives = summarize_negatives(
            query, queue, temperature=temperature, own_ids=own_ids, queue_ids=queue_ids
        )
        return contrast_of(positive, negatives)


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
        negatives: unit vectors of ``N`` other frames of the same video.
        temperature: divides every similarity.
        form: ``"joint"``: one softmax over the positive and all negatives (the paper);
            ``"pairwise"``: one softmax per negative, averaged (the released code).

    Shape: ``query``, ``positive``: ``(B, D)``; ``negatives``: ``(B, N, D)``.

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
        return contrast_of(same, NegativeSummary(log_sum, hardest, mean))


def contrast_of(positive: Tensor, negatives: NegativeSummary) -> Contrast:
    """Return the mean loss of positive logits ``(B, P)``, each against the query's negatives."""
    log_sum = negatives.log_sum if negatives.log_sum.dim() == 2 else negatives.log_sum[:, None]
    # -log(e^p / (e^p + sum)) = -logsigmoid(p - log sum): no (K + 1)-wide tensor.
    loss = -logsigmoid(positive - log_sum).mean()
    return Contrast(loss, positive.detach(), negatives.hardest, negatives.mean)
