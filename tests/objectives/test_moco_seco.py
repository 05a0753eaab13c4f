"""MoCo v2 and SeCo: what each of their losses reads, its value written out, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.objectives import InterFrame, IntraFrame, MoCo, PrecedesOrFollows

VIDEOS, WIDTH = 4, 6


@pytest.fixture
def batch() -> Any:
    return {
        "video_id": torch.tensor([7, 3, 9, 1]),
        "group_id": torch.arange(4),
        "targets": {"follows": torch.tensor([0, 1, 1, 0])},
    }


def features(requests: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """The same features for the same view, whichever objective requests it."""
    found = {}
    for name, request in requests.items():
        (view,) = request.views
        rng = torch.Generator().manual_seed(seed + sum(view.encode()))
        x = torch.randn(VIDEOS, 1, WIDTH, generator=rng, dtype=torch.float64)
        found[name] = x.requires_grad_(request.encoder == "query")
    return found


def embedded(head: nn.Module, x: Tensor) -> Any:
    rows = head(x[:, 0]).detach().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def negative_log_softmax(logits: Any) -> float:
    """Of the first of them."""
    return float(-np.log(np.exp(logits[0]) / np.exp(logits).sum()))


def test_moco_is_one_key_against_the_queue_alone(
    batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    moco = MoCo(num_features=WIDTH, embedding_dim=5, queue_size=9)
    assert (moco.temperature, moco.own_mask) == (0.2, "none")
    assert MoCo(num_features=WIDTH, embedding_dim=1).queue.size == 65536
    apart(moco)
    moco.queue.ids[:3] = batch["video_id"][1]  # earlier keys of a video are no exception
    requests = moco.requests()
    assert [(r.encoder, r.views) for r in requests.values()] == [
        ("query", ("queries",)),
        ("key", ("keys",)),
    ]
    given = features(requests)
    out = moco(given, batch)
    q, k = embedded(moco.query_head, given["query"]), embedded(moco.key_head, given["key0"])
    queue = moco.queue.rows.numpy()
    losses = [
        negative_log_softmax(np.concatenate([[q[b] @ k[b]], queue @ q[b]]) / 0.2)
        for b in range(VIDEOS)
    ]
    assert out.loss.item() == pytest.approx(np.mean(losses))
    before = queue.copy()
    out.loss.backward()
    assert np.array_equal(moco.queue.rows.numpy(), before)
    moco.commit(out.pending, step=0)
    np.testing.assert_allclose(moco.queue.rows[:4].numpy(), k)
    assert all(p.grad is None for p in moco.key_head.parameters())


def test_head_of_moco_is_as_wide_as_the_features() -> None:
    first, _, second = MoCo(num_features=WIDTH, embedding_dim=5, queue_size=9).query_head
    assert (first.out_features, second.out_features) == (WIDTH, 5)
    assert first.bias is not None
    assert second.bias is not None


KEYS: tuple[str, ...] = ("x1_again", "x2", "x3")
seco_inter = partial(
    InterFrame, query="x1", keys=KEYS, queue_size=15, own_mask="none", queue_init="uniform"
)
seco_intra = partial(
    IntraFrame, query="x1", positive="x1_again", negatives=KEYS[1:], form="pairwise"
)


def test_inter_frame_of_seco(batch: Any, apart: Callable[[nn.Module], None]) -> None:
    """Each of the three keys against the queue alone; keys are queued x1_again | x2 | x3."""
    inter = seco_inter(num_features=WIDTH, embedding_dim=5)
    assert (inter.queue.rows.norm(dim=1) - 1).abs().max() > 0.05  # uniform, not normalised
    apart(inter)
    given = features(inter.requests())
    out = inter(given, batch)
    q = embedded(inter.query_head, given["query"])
    keys = [embedded(inter.key_head, given[f"key{i}"]) for i in range(3)]
    queue = inter.queue.rows.numpy().copy()
    losses = [
        negative_log_softmax(np.concatenate([[q[b] @ k[b]], queue @ q[b]]) / 0.1)
        for b in range(VIDEOS)
        for k in keys
    ]
    assert out.loss.item() == pytest.approx(np.mean(losses))
    inter.commit(out.pending, step=0)
    np.testing.assert_allclose(inter.queue.rows[:12].numpy(), np.concatenate(keys))


def test_intra_frame_of_seco_is_two_two_way_softmaxes(
    batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    intra = seco_intra(num_features=WIDTH, embedding_dim=5)
    apart(intra)
    given = features(intra.requests())
    q = embedded(intra.query_head, given["query"])
    same, *others = (embedded(intra.key_head, given[name]) for name in given if name != "query")
    losses = [
        negative_log_softmax(np.array([q[b] @ same[b], q[b] @ other[b]]) / 0.1)
        for b in range(VIDEOS)
        for other in others
    ]
    assert len(losses) == 2 * VIDEOS
    assert intra(given, batch).loss.item() == pytest.approx(np.mean(losses))


def test_order_of_seco(batch: Any, apart: Callable[[nn.Module], None]) -> None:
    order = PrecedesOrFollows(num_features=WIDTH, embedding_dim=5)
    apart(order)
    assert list(order.targets()) == ["follows"]
    requests = order.requests()
    assert [(r.encoder, r.views) for r in requests.values()] == [
        ("query", ("x1",)),
        ("key", ("x2",)),  # x1_again is no part of it
        ("key", ("x3",)),
    ]
    given = features(requests)
    out = order(given, batch)
    joined = np.concatenate(
        [
            embedded(order.query_head, given["query"]),
            embedded(order.key_head, given["key0"]),
            embedded(order.key_head, given["key1"]),
        ],
        axis=1,
    )
    weight, bias = (p.detach().numpy() for p in order.classifier.parameters())
    assert weight.shape == (2, 15)
    losses, right = [], []
    for row, label in zip(joined, [0, 1, 1, 0], strict=True):
        logits = weight @ row + bias
        losses.append(negative_log_softmax(logits[[label, 1 - label]]))
        right.append(logits.argmax() == label)
    assert out.loss.item() == pytest.approx(np.mean(losses))
    assert out.metrics["accuracy"].item() == pytest.approx(np.mean(right))
    assert out.metrics["chance"].item() == 0.5
    out.loss.backward()
    assert all(p.grad is not None for p in order.query_head.parameters())
    assert all(p.grad is None for p in order.key_head.parameters())


def test_the_losses_of_seco_have_heads_of_their_own() -> None:
    built = [
        make(num_features=WIDTH, embedding_dim=5)
        for make in (seco_inter, seco_intra, PrecedesOrFollows)
    ]
    heads = {id(p) for objective in built for p in objective.parameters()}
    assert len(heads) == sum(len(list(objective.parameters())) for objective in built)


@pytest.mark.parametrize("wrong", ["x2", []])
def test_keys_that_are_no_list_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match="must be a list of views"):
        PrecedesOrFollows(num_features=6, keys=wrong)
