"""What a queue of negatives contributes to a softmax, without a tensor as large as the queue."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vclr_lightning.functional.precision import full, without_autocast

# Logits held at a time; small enough for a CPU's cache, large enough to fill an accelerator.
_LOGITS_AT_ONCE = {"cpu": 2**20}
_LOGITS_AT_ONCE_ELSEWHERE = 2**22


class NegativeTerms(NamedTuple):
    """What one softmax needs to know of its negatives.

    Attributes:
        log_sum: log of the sum of exp(logit), ``(B,)``, with gradient to the queries;
            -inf where a query has no negative.
        hardest: largest logit, ``(B,)``; -inf where there is none.
        mean: mean logit, ``(B,)``; 0 where there is none.
    """

    log_sum: Tensor
    hardest: Tensor
    mean: Tensor


def negative_terms(
    query: Tensor,
    queue: Tensor,
    *,
    temperature: float,
    own_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> NegativeTerms:
    """Reduce the logits of ``query`` with all rows of ``queue`` in one pass.

    The pass goes over blocks of rows and computes the gradient with respect to the queries on
    the way, so neither direction holds ``B x K`` or ``K x D`` values. The queue gets no gradient,
    and must not be kept for the backward pass: it may be written to at any time afterwards.

    Shape:
        ``query``: ``(B, D)``; ``queue``: ``(K, D)``; ``own_ids``: ``(B,)``;
        ``queue_ids``: ``(K,)``.

    Example:
        >>> terms = negative_terms(torch.eye(2), torch.eye(2), temperature=1.0)
        >>> [f"{x:.4f}" for x in terms.log_sum.tolist()]  # log(e + 1)
        ['1.3133', '1.3133']
        >>> ids = torch.tensor([0, 1])
        >>> masked = negative_terms(
        ...     torch.eye(2), torch.eye(2), temperature=1.0, own_ids=ids, queue_ids=ids
        ... )
        >>> masked.log_sum.tolist()  # log(1)
        [0.0, 0.0]
    """
    return NegativeTerms(
        *_NegativeTerms.apply(query, queue.detach(), temperature, own_ids, queue_ids)
    )


class _NegativeTerms(torch.autograd.Function):
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
                base = new_peak.masked_fill(new_peak == -torch.inf, 0)  # nothing but own rows yet
                weights = logits.sub_(base[:, None]).exp_()
                shrink = (peak - base).exp()
                total = total * shrink + weights.sum(-1)
                if ctx.needs_input_grad[0]:
                    pull = torch.addmm(pull * shrink[:, None], weights, rows)
                peak = new_peak
            log_sum = torch.log(total) + peak.masked_fill(peak == -torch.inf, 0)
            tiny = torch.finfo(total.dtype).tiny
            ctx.save_for_backward(pull / total.clamp_min(tiny)[:, None] / temperature)
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
