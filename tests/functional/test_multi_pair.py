"""The multi-pair loss against sums written out pair by pair, and the figures of VINCE's code."""

from __future__ import annotations

import json
import zlib
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from vclr_lightning.functional.contrastive import summarize_negatives
from vclr_lightning.functional.multi_pair import multi_pair_nce

REFERENCE = Path(__file__).parents[1] / "reference"
FIGURES = json.loads((REFERENCE / "vince.json").read_text())


def vectors(rows: int, seed: int, dim: int = 5) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=rng, dtype=torch.float64), dim=1)


def written_out(query: Any, candidates: Any, positive: Any, queue: Any, t: float) -> float:
    """One term for each positive pair; their mean."""
    terms = []
    for i, q in enumerate(query.tolist()):
        scores = [sum(a * b for a, b in zip(q, c, strict=True)) / t for c in candidates.tolist()]
        others = [sum(a * b for a, b in zip(q, c, strict=True)) / t for c in queue.tolist()]
        negatives = [s for s, own in zip(scores, positive[i], strict=True) if not own] + others
        for p, own in enumerate(positive[i]):
            if own:
                below = exp(scores[p]) + sum(exp(s) for s in negatives)
                terms.append(-log(exp(scores[p]) / below))
    return sum(terms) / len(terms)


@given(
    videos=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    queue=st.integers(0, 6),
    seed=st.integers(0, 1000),
    t=st.sampled_from([0.05, 0.2, 1.0]),
)
def test_any_numbers_of_positives(videos: list[int], queue: int, seed: int, t: float) -> None:
    ids = torch.tensor(videos)
    positive = ids[:, None] == ids
    query, keys, rows = (
        vectors(len(ids), seed),
        vectors(len(ids), seed + 1),
        vectors(queue, seed + 2),
    )
    further = summarize_negatives(query, rows, temperature=t) if queue else None
    found = multi_pair_nce(query, keys, positive, temperature=t, further=further)
    assert found.loss.item() == pytest.approx(written_out(query, keys, positive, rows, t), abs=1e-9)
    assert int(found.pairs) == sum(videos.count(video) for video in videos)


@pytest.mark.parametrize("queue", [0, 4])
def test_gradients_are_those_of_finite_differences(queue: int) -> None:
    ids = torch.tensor([0, 0, 1, 2, 2, 2])
    rows = vectors(queue, 3)

    def loss(query: Tensor, keys: Tensor) -> Tensor:
        further = summarize_negatives(query, rows, temperature=0.3) if queue else None
        same = ids[:, None] == ids
        return multi_pair_nce(query, keys, same, temperature=0.3, further=further).loss

    both = vectors(6, 1).requires_grad_(), vectors(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(loss, both)


def test_a_query_without_negatives_has_no_loss_and_no_gradient() -> None:
    query = vectors(3, 0).requires_grad_()
    found = multi_pair_nce(query, query, torch.ones(3, 3, dtype=torch.bool), temperature=0.1)
    found.loss.backward()
    assert found.loss.item() == 0
    assert query.grad is not None
    assert (query.grad == 0).all()


def block_mask(counts: list[int]) -> Tensor:
    ids = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ids[:, None] == ids


def named(name: str, rows: int, width: int) -> Tensor:
    """Unit rows by the naming rule of the figures."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal((rows, width))
    return torch.from_numpy(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.mark.parametrize("step", range(3))
def test_losses_gradients_and_accuracy_are_those_of_vince(step: int) -> None:
    with np.load(REFERENCE / "vince.npz") as arrays:
        before = "queue_init" if step == 0 else f"step{step - 1}.queue"
        queue = torch.from_numpy(arrays[before])
        expected, to_itself = (
            torch.from_numpy(arrays[f"step{step}.grad_q{suffix}"]) for suffix in ("", "_self")
        )
    figures, rows = FIGURES["steps"][step], FIGURES["videos"] * FIGURES["frames"]
    positive = block_mask([FIGURES["frames"]] * FIGURES["videos"])
    query, keys = (named(f"vince.step{step}.{side}", rows, FIGURES["D"]) for side in "qk")

    query.requires_grad_()
    further = summarize_negatives(query, queue, temperature=FIGURES["t"])
    found = multi_pair_nce(query, keys, positive, temperature=FIGURES["t"], further=further)
    (gradient,) = torch.autograd.grad(found.loss, query)
    assert found.loss.item() == pytest.approx(figures["loss"], abs=1e-9)
    assert found.top1.item() == pytest.approx(figures["accuracy"], abs=1e-6)
    torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=0)

    itself = multi_pair_nce(query, query, positive, temperature=FIGURES["t_self"])
    (gradient,) = torch.autograd.grad(itself.loss, query)
    assert itself.loss.item() == pytest.approx(figures["loss_self"], abs=1e-9)
    torch.testing.assert_close(gradient, to_itself, atol=1e-8, rtol=0)


def test_uneven_numbers_of_positives_are_those_of_vince() -> None:
    counts, width = FIGURES["uneven"]["counts"], FIGURES["D"]
    query, keys = (named(f"vince.uneven.{side}", sum(counts), width) for side in "qk")
    queue = named("vince.uneven.queue", FIGURES["K"], width)
    query.requires_grad_()
    further = summarize_negatives(query, queue, temperature=FIGURES["t"])
    found = multi_pair_nce(
        query, keys, block_mask(counts), temperature=FIGURES["t"], further=further
    )
    found.loss.backward()
    assert found.loss.item() == pytest.approx(FIGURES["uneven"]["loss"], abs=1e-9)
    with np.load(REFERENCE / "vince.npz") as arrays:
        expected = torch.from_numpy(arrays["uneven.grad_q"])
    torch.testing.assert_close(query.grad, expected, atol=1e-9, rtol=0)
