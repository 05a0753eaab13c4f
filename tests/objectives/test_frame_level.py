"""Inter-frame and intra-frame objectives against sums written out pair by pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.objectives import InterFrame, IntraFrame

REFERENCE = Path(__file__).parents[1] / "reference"
Features = dict[str, Tensor]


def embed(head: nn.Module, features: Tensor) -> Tensor:
    return normalize(head(features).detach(), dim=-1)


def nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float = 0.1) -> float:
    hit = exp(float(query @ positive) / temperature)
    return -log(hit / (hit + sum(exp(float(query @ n) / temperature) for n in negatives)))


def test_inter_frame(
    frame_features: Features, batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    inter = InterFrame(num_features=6, embedding_dim=4, queue_size=10)
    apart(inter)
    inter.queue.ids[3] = batch["video_id"][1]  # an older key of a video of the batch
    out = inter(frame_features, batch)

    query = embed(inter.query_head, frame_features["query"])[:, 0]
    keys = embed(inter.key_head, torch.cat([frame_features[f"key{i}"] for i in range(3)], 1))
    losses, hits = [], []
    for b in range(4):
        rows = inter.queue.rows[inter.queue.ids != batch["video_id"][b]]
        assert len(rows) == (9 if b == 1 else 10)
        losses += [nce(query[b], keys[b, i], rows) for i in range(3)]
        hits += [bool(query[b] @ keys[b, i] > (rows @ query[b]).max()) for i in range(3)]
    assert out.loss.item() == pytest.approx(np.mean(losses))
    assert out.metrics["top1"].item() == pytest.approx(np.mean(hits))
    similarity = torch.einsum("bd,bpd->bp", query, keys).mean().item()
    assert out.metrics["positive_similarity"].item() == pytest.approx(similarity)

    out.loss.backward()
    assert all(p.grad is not None for p in inter.query_head.parameters())
    assert all(p.grad is None for p in inter.key_head.parameters())
    assert frame_features["query"].grad is not None


def test_inter_frame_queues_all_second_views_then_all_x2_then_all_x3(
    frame_features: Features, batch: Any
) -> None:
    inter = InterFrame(num_features=6, embedding_dim=4, queue_size=16).double()
    pending = inter(frame_features, batch).pending
    before = inter.queue.rows.clone()
    inter.commit(pending, step=7)
    keys = pending["keys"]
    assert torch.equal(inter.queue.rows[:12], torch.cat([keys[:, 0], keys[:, 1], keys[:, 2]]))
    assert torch.equal(inter.queue.rows[12:], before[12:])
    assert inter.queue.ids.tolist() == [10, 11, 12, 13] * 3 + [-1] * 4
    state = inter.diagnostics(step=9)
    assert state["queue_fill"].item() == 0.75
    assert state["queue_age"].item() == 2
    assert {"spread", "effective_rank"} <= set(state)


def test_reference_queue_contents() -> None:
    figures = json.loads((REFERENCE / "g1_losses.json").read_text())
    with np.load(REFERENCE / "g1_losses.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    inter = InterFrame(num_features=8, embedding_dim=128, queue_size=figures["K"])
    inter.queue.rows.copy_(tensors["memory_seco_init"])
    for step in range(3):
        keys = [tensors[f"step{step}.k_{name}_inter"] for name in ("same", "diff1", "diff2")]
        inter.commit({"keys": torch.stack(keys, 1), "ids": torch.arange(8)}, step)
        expected = tensors[f"step{step}.memory_seco"]
        torch.testing.assert_close(inter.queue.rows, expected, atol=1e-6, rtol=0)
        assert int(inter.queue.pointer) == figures["steps"][f"step{step}"]["index_seco_after"]


@pytest.mark.parametrize(("own_mask", "left_out"), [("video", 1), ("group", 2), ("none", 0)])
def test_own_mask(frame_features: Features, batch: Any, own_mask: Any, left_out: int) -> None:
    inter = InterFrame(num_features=6, embedding_dim=4, queue_size=12, own_mask=own_mask).double()
    inter.commit(inter(frame_features, batch).pending, step=0)
    again = inter(frame_features, batch)
    query = embed(inter.query_head, frame_features["query"])[:, 0]
    keys = again.pending["keys"]
    ids = batch["group_id"] if own_mask == "group" else batch["video_id"]
    queued = ids.repeat(3)
    losses = []
    for b in range(4):
        kept = torch.ones(12, dtype=torch.bool) if own_mask == "none" else queued != ids[b]
        assert (~kept).sum() == 3 * left_out
        losses += [nce(query[b], keys[b, i], inter.queue.rows[kept]) for i in range(3)]
    assert again.loss.item() == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("form", ["joint", "pairwise"])
def test_intra_frame(
    frame_features: Features, batch: Any, form: Any, apart: Callable[[nn.Module], None]
) -> None:
    intra = IntraFrame(num_features=6, embedding_dim=4, form=form)
    apart(intra)
    out = intra(frame_features, batch)
    query = embed(intra.query_head, frame_features["query"])[:, 0]
    same = embed(intra.key_head, frame_features["positive"])[:, 0]
    negatives = torch.cat([frame_features["negative0"], frame_features["negative1"]], 1)
    others = embed(intra.key_head, negatives)
    if form == "joint":
        losses = [nce(query[b], same[b], others[b]) for b in range(4)]
    else:
        losses = [nce(query[b], same[b], others[b, j : j + 1]) for b in range(4) for j in (0, 1)]
    assert out.loss.item() == pytest.approx(np.mean(losses))
    assert not out.pending
    hits = [bool(query[b] @ same[b] > (others[b] @ query[b]).max()) for b in range(4)]
    assert out.metrics["top1"].item() == np.mean(hits)
    out.loss.backward()
    assert all(p.grad is None for p in intra.key_head.parameters())


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: InterFrame(num_features=6, temperature=0), "temperature=0"),
        (lambda: InterFrame(num_features=6, own_mask="clip"), "own_mask='clip'"),  # type: ignore[arg-type]
        (lambda: InterFrame(num_features=6, queue_init="ones", queue_size=4), "queue_init='ones'"),  # type: ignore[arg-type]
        (lambda: InterFrame(num_features=6, embedding_dim=0), "embedding_dim=0"),
        (lambda: IntraFrame(num_features=6, form="all"), "form='all'"),  # type: ignore[arg-type]
        (lambda: IntraFrame(num_features=6, temperature=-1), "temperature=-1"),
    ],
)
def test_wrong_values_are_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build()
