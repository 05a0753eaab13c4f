"""The blockwise kernel and the losses against the definition of InfoNCE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vclr_lightning.functional import contrastive
from vclr_lightning.functional.contrastive import (
    info_nce,
    intra_nce,
    queue_nce,
    summarize_negatives,
    unit,
)


def plain(
    query: Tensor, queue: Tensor, t: float, own: Tensor | None, ids: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    logits = query @ queue.T / t
    if own is None or ids is None:
        return logits.logsumexp(1), logits.amax(1), logits.mean(1)
    mask = own[:, None] == ids
    masked = logits.masked_fill(mask, -torch.inf)
    count = (~mask).sum(1).clamp_min(1)
    return masked.logsumexp(1), masked.amax(1), logits.masked_fill(mask, 0).sum(1) / count


def units(generator: torch.Generator, *shape: int) -> Tensor:
    return unit(torch.randn(*shape, generator=generator, dtype=torch.float64))


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 5),
    positives=st.integers(1, 3),
    rows=st.integers(1, 40),
    dim=st.integers(1, 6),
    at_once=st.integers(1, 64),
    temperature=st.sampled_from([0.02, 0.1, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_queue_and_intra_losses_are_info_nce(
    batch: int, positives: int, rows: int, dim: int, at_once: int, temperature: float, seed: int
) -> None:
    """Values and gradients: over the positives against the queue, and over each video's frames."""
    generator = torch.Generator().manual_seed(seed)
    query = units(generator, batch, dim).requires_grad_()
    keys, queue = units(generator, batch, positives, dim), units(generator, rows, dim)

    def check(loss: Tensor, definition: Tensor) -> None:
        torch.testing.assert_close(loss, definition)
        (grad,) = torch.autograd.grad(loss, query)
        torch.testing.assert_close(grad, torch.autograd.grad(definition, query)[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contrastive._LOGITS_AT_ONCE, "cpu", at_once)
        loss = queue_nce(query, keys, queue, temperature=temperature).loss
    of_each_positive = [
        info_nce(query, key, queue, temperature=temperature) for key in keys.unbind(1)
    ]
    check(loss, torch.stack(of_each_positive).mean())

    frames = units(generator, batch, rows, dim)
    of_each_video = [
        info_nce(query[b : b + 1], keys[b : b + 1, 0], frames[b], temperature=temperature)
        for b in range(batch)
    ]
    check(
        intra_nce(query, keys[:, 0], frames, temperature=temperature).loss,
        torch.stack(of_each_video).mean(),
    )


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 5),
    rows=st.integers(1, 40),
    dim=st.integers(1, 6),
    at_once=st.integers(1, 64),
    masked=st.booleans(),
    temperature=st.sampled_from([0.02, 0.1, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_plain_softmax_whatever_the_blocks(
    batch: int, rows: int, dim: int, at_once: int, masked: bool, temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, dim, generator=generator, dtype=torch.float64).requires_grad_()
    queue = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    own = torch.arange(batch) if masked else None
    ids = torch.randint(-1, batch + 3, (rows,), generator=generator) if masked else None
    upstream = torch.randn(batch, generator=generator, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contrastive._LOGITS_AT_ONCE, "cpu", at_once)
        terms = summarize_negatives(
            query, queue, temperature=temperature, own_ids=own, queue_ids=ids
        )
    expected = plain(query, queue, temperature, own, ids)
    for ours, theirs in zip(terms, expected, strict=True):
        torch.testing.assert_close(ours, theirs)

    has_negatives = expected[0].isfinite()  # the plain gradient is nan where there are none
    (grad,) = torch.autograd.grad((terms.log_sum * upstream)[has_negatives].sum(), query)
    (plain_grad,) = torch.autograd.grad((expected[0] * upstream)[has_negatives].sum(), query)
    torch.testing.assert_close(grad[has_negatives], plain_grad[has_negatives])


def test_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    queue = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda q: summarize_negatives(q, queue, temperature=0.5).log_sum, (query,)
    )


def test_the_queue_may_change_before_the_backward_pass() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, generator=generator).requires_grad_()
    queue = torch.randn(9, 4, generator=generator)
    (expected,) = torch.autograd.grad(
        summarize_negatives(query, queue, temperature=0.1).log_sum.sum(), query
    )
    loss = summarize_negatives(query, queue, temperature=0.1).log_sum.sum()
    queue.zero_()
    (grad,) = torch.autograd.grad(loss, query)
    assert torch.equal(grad, expected)


class LargestAllocation(TorchDispatchMode):
    """Remembers the largest tensor that an operation put into memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        storages = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in storages:
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("batch", [4, 64, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_operation_allocates_as_much_as_the_queue(batch: int, dtype: torch.dtype) -> None:
    query = torch.randn(batch, 32).requires_grad_()
    queue, ids = torch.randn(4096, 32).to(dtype), torch.arange(4096)
    with LargestAllocation() as largest:
        summarize_negatives(
            query, queue, temperature=0.1, own_ids=torch.arange(batch), queue_ids=ids
        ).log_sum.sum().backward()
    assert 0 < largest.numel < queue.numel()
