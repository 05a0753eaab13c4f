"""The contrastive losses against the reference figures and handwritten sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.contrastive import intra_nce, queue_nce, unit

REFERENCE = Path(__file__).parents[1] / "reference"
STEPS = ("step0", "step1", "step2")
T = 0.1


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    with np.load(REFERENCE / "g1_losses.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {"tensors": tensors, **json.loads((REFERENCE / "g1_losses.json").read_text())}


def memory_before(figures: dict[str, Any], step: str, which: str) -> Tensor:
    number = int(step[-1])
    name = f"step{number - 1}.memory_{which}" if number else f"memory_{which}_init"
    memory: Tensor = figures["tensors"][name]
    return memory


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("step", STEPS)
def test_losses_and_gradients_equal_the_reference(
    figures: dict[str, Any], step: str, dtype: torch.dtype
) -> None:
    values = figures["steps"][step]
    suffix = "" if dtype == torch.float64 else "_fp32"
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5

    def tensor(name: str) -> Tensor:
        return figures["tensors"][f"{step}.{name}"].to(dtype).clone()

    q = tensor("q_inter").requires_grad_()
    keys = torch.stack([tensor(f"k_{name}_inter") for name in ("same", "diff1", "diff2")], 1)
    inter = queue_nce(q, keys, memory_before(figures, step, "seco").to(dtype), temperature=T)
    inter.loss.backward()
    assert inter.loss.item() == pytest.approx(values[f"loss_inter{suffix}"], abs=tolerance)
    torch.testing.assert_close(q.grad, tensor("grad_q_inter"), atol=1e-5, rtol=0)

    q = tensor("q_video").requires_grad_()
    memory = memory_before(figures, step, "vclr").to(dtype)
    video = queue_nce(q, tensor("k_video")[:, None], memory, temperature=T)
    video.loss.backward()
    assert video.loss.item() == pytest.approx(values[f"loss_video{suffix}"], abs=tolerance)
    torch.testing.assert_close(q.grad, tensor("grad_q_video"), atol=1e-5, rtol=0)

    for form, loss, grad in (
        ("pairwise", f"loss_intra_released{suffix}", "grad_q_intra"),
        ("joint", "loss_intra_paper_3way", "grad_q_intra_3way"),
    ):
        q = tensor("q_intra").requires_grad_()
        others = torch.stack([tensor("k_diff1_intra"), tensor("k_diff2_intra")], 1)
        intra = intra_nce(q, tensor("k_same_intra"), others, temperature=T, form=form)
        intra.loss.backward()
        assert intra.loss.item() == pytest.approx(values[loss], abs=tolerance)
        torch.testing.assert_close(q.grad, tensor(grad), atol=1e-5, rtol=0)


@pytest.mark.parametrize("step", STEPS)
def test_logits_equal_the_reference(figures: dict[str, Any], step: str) -> None:
    tensors = figures["tensors"]
    logits = tensors[f"{step}.logits_inter"]  # (3 B, 1 + K): x1 of all videos, then x2, then x3
    keys = [tensors[f"{step}.k_{name}_inter"] for name in ("same", "diff1", "diff2")]
    memory = memory_before(figures, step, "seco").double()
    contrast = queue_nce(tensors[f"{step}.q_inter"], torch.stack(keys, 1), memory, temperature=T)
    batch = len(contrast.hardest)
    torch.testing.assert_close(contrast.positive.T.flatten(), logits[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(contrast.hardest, logits[:batch, 1:].amax(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(contrast.negative, logits[:batch, 1:].mean(1), atol=1e-5, rtol=0)


def handwritten(query: Tensor, positives: Tensor, rows: list[Tensor]) -> float:
    """Mean over b and p of -log(e^(q.k/t) / (e^(q.k/t) + sum e^(q.n/t))), one pair at a time."""
    losses = []
    for q, ks, negatives in zip(query, positives, rows, strict=True):
        total = sum(np.exp(float(q @ n) / T) for n in negatives)
        losses += [-np.log(e / (e + total)) for e in (np.exp(float(q @ k) / T) for k in ks)]
    return float(np.mean(losses))


def random_units(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(*shape, generator=generator, dtype=torch.float64))


def test_own_videos_are_left_out_of_the_negatives() -> None:
    query, keys, queue = (
        random_units(*s, seed=i) for i, s in enumerate([(3, 4), (3, 2, 4), (6, 4)])
    )
    own, ids = torch.tensor([5, 7, 9]), torch.tensor([5, -1, 7, 7, 5, 2])
    masked = queue_nce(query, keys, queue, temperature=T, own_ids=own, queue_ids=ids)
    kept = [queue[[1, 2, 3, 5]], queue[[0, 1, 4, 5]], queue]
    assert masked.loss.item() == pytest.approx(handwritten(query, keys, kept), abs=1e-12)
    hardest = [float((n @ q).max()) / T for q, n in zip(query, kept, strict=True)]
    assert masked.hardest.tolist() == pytest.approx(hardest)


def test_a_query_without_negatives_costs_nothing() -> None:
    query = random_units(2, 4, seed=0).requires_grad_()
    queue, ids = random_units(3, 4, seed=1), torch.tensor([1, 1, 1])
    contrast = queue_nce(
        query, query.detach()[:, None], queue, temperature=T,
        own_ids=torch.tensor([1, 1]), queue_ids=ids,
    )  # fmt: skip
    contrast.loss.backward()
    assert contrast.loss.item() == 0
    assert torch.equal(query.grad, torch.zeros_like(query))


def test_only_the_query_gets_a_gradient() -> None:
    query, key, queue = (
        random_units(*s, seed=0).requires_grad_() for s in [(2, 4), (2, 1, 4), (5, 4)]
    )
    (queue_nce(query, key, queue, temperature=T).loss).backward()
    others = random_units(2, 2, 4, seed=2).requires_grad_()
    intra_nce(query, key[:, 0], others, temperature=T).loss.backward()
    assert query.grad is not None
    assert key.grad is None
    assert queue.grad is None
    assert others.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32_under_autocast(dtype: torch.dtype) -> None:
    query, key, queue = (
        random_units(*s, seed=i).float() for i, s in enumerate([(4, 8), (4, 1, 8), (16, 8)])
    )
    exact = queue_nce(query, key, queue, temperature=T).loss
    intra = intra_nce(query, key[:, 0], key.expand(-1, 2, -1), temperature=T).loss
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(queue_nce(query, key, queue, temperature=T).loss, exact)
        again = intra_nce(query, key[:, 0], key.expand(-1, 2, -1), temperature=T).loss
        assert torch.equal(again, intra)
        assert unit(query.to(dtype)).dtype == torch.float32


def test_large_logits_do_not_overflow() -> None:
    query = random_units(4, 8, seed=0).float()
    loss = queue_nce(query, query[:, None], -query, temperature=1e-3).loss
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert queue_nce(query, -query[:, None], query, temperature=1e-3).loss.isfinite()


def test_unknown_form_is_refused() -> None:
    x = random_units(2, 4, seed=0)
    with pytest.raises(UserError, match=r"'triple'.*'joint' or 'pairwise'"):
        intra_nce(x, x, x[:, None], temperature=T, form="triple")  # type: ignore[arg-type]
