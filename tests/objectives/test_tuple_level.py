"""Video-level and order objectives against sums written out tuple by tuple."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.embedding import maximum
from vclr_lightning.objectives import TemporalOrder, VideoLevel

Features = dict[str, Tensor]


def test_video_level(
    tuple_features: Features, batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    video = VideoLevel(num_features=6, embedding_dim=4, queue_size=9, temperature=0.2)
    apart(video)
    video.queue.ids[:2] = batch["video_id"][2]
    out = video(tuple_features, batch)

    losses, keys = [], []
    for b in range(4):
        q = video.query_head(sum(tuple_features["query"][b]) / 3).detach()
        k = video.key_head(sum(tuple_features["key"][b]) / 3)
        q, k = q / q.norm(), k / k.norm()
        rows = video.queue.rows[2:] if b == 2 else video.queue.rows
        hit = exp(float(q @ k) / 0.2)
        losses.append(-log(hit / (hit + sum(exp(float(q @ n) / 0.2) for n in rows))))
        keys.append(k)
    assert out.loss.item() == pytest.approx(np.mean(losses))

    out.loss.backward()
    assert all(p.grad is not None for p in video.query_head.parameters())
    assert all(p.grad is None for p in video.key_head.parameters())
    video.commit(out.pending, step=0)
    torch.testing.assert_close(video.queue.rows[:4], torch.stack(keys))
    assert video.queue.ids[:5].tolist() == [10, 11, 12, 13, -1]


def test_consensus_is_pluggable(tuple_features: Features, batch: Any) -> None:
    video = VideoLevel(num_features=6, embedding_dim=4, queue_size=9, consensus=maximum).double()
    expected = video.key_head(tuple_features["key"].max(1).values)
    pending = video(tuple_features, batch).pending
    torch.testing.assert_close(pending["keys"][:, 0], normalize(expected, dim=1))


class Weighted(nn.Module):
    """A consensus with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(1)


def test_consensus_with_parameters_follows_by_momentum(
    tuple_features: Features, batch: Any
) -> None:
    video = VideoLevel(num_features=6, embedding_dim=4, queue_size=9, consensus=Weighted()).double()
    pairs = list(video.momentum_pairs())
    assert [type(query).__name__ for query, _ in pairs] == ["Sequential", "Weighted"]
    assert all(query is not key for query, key in pairs)
    video(tuple_features, batch).loss.backward()
    query, key = pairs[1]
    assert next(query.parameters()).grad is not None
    assert not next(key.parameters()).requires_grad


@pytest.mark.parametrize("normalize_over", ["channels", "frames"])
def test_temporal_order(
    tuple_features: Features,
    batch: Any,
    normalize_over: Any,
    apart: Callable[[nn.Module], None],
) -> None:
    order = TemporalOrder(num_features=6, embedding_dim=4, normalize=normalize_over)
    apart(order)
    out = order(tuple_features, batch)

    losses, right = [], []
    for b in range(4):
        values = []
        for side, head in (("query", order.query_head), ("key", order.key_head)):
            rows = head(tuple_features[side][b]).detach().numpy()  # (S, D)
            axis = 1 if normalize_over == "channels" else 0
            rows = rows / np.linalg.norm(rows, axis=axis, keepdims=True)
            name = "anchor" if side == "query" else "positive"
            values += [rows[i] for i in batch["targets"][f"{name}_order"][b]]
        weight = order.classifier.weight.detach().numpy()
        logits = weight @ np.concatenate(values) + order.classifier.bias.detach().numpy()
        label = int(batch["targets"]["shuffled"][b])
        losses.append(-logits[label] + np.log(np.exp(logits).sum()))
        right.append(logits.argmax() == label)
    assert out.loss.item() == pytest.approx(np.mean(losses))
    assert out.metrics["accuracy"].item() == np.mean(right)
    assert out.metrics["chance"].item() == 0.25

    out.loss.backward()
    assert order.classifier.weight.grad is not None
    assert all(p.grad is not None for p in order.query_head.parameters())
    assert all(p.grad is None for p in order.key_head.parameters())


def test_one_segment_has_no_order() -> None:
    order = TemporalOrder(num_features=6, num_segments=1)
    assert not order.enabled
    assert not list(order.parameters())
    assert not list(order.momentum_pairs())


@pytest.mark.parametrize("segments", [2, 5, 7])
def test_any_number_of_segments(segments: int) -> None:
    order = TemporalOrder(num_features=6, num_segments=segments, embedding_dim=4)
    features = {name: torch.randn(2, segments, 6) for name in ("query", "key")}
    permutation = torch.arange(segments).flip(0).repeat(2, 1)
    batch: Any = {
        "targets": {
            "anchor_order": permutation,
            "positive_order": permutation,
            "shuffled": torch.tensor([0, 3]),
        }
    }
    assert order(features, batch).loss.isfinite()


@pytest.mark.parametrize("objective", [VideoLevel, TemporalOrder])
def test_tuples_of_another_length_are_refused(
    objective: Any, tuple_features: Features, batch: Any
) -> None:
    options = {"queue_size": 8} if objective is VideoLevel else {}
    built = objective(num_features=6, num_segments=4, embedding_dim=4, **options).double()
    with pytest.raises(UserError, match=r"tuples of 3 clips.*num_segments.*is 4"):
        built(tuple_features, batch)


@pytest.mark.parametrize("objective", [VideoLevel, TemporalOrder])
def test_checkpoints_of_another_number_of_segments_are_refused(objective: Any) -> None:
    options = {"queue_size": 8} if objective is VideoLevel else {}
    saved = objective(num_features=6, num_segments=3, embedding_dim=4, **options).state_dict()
    with pytest.raises(UserError, match="num_segments"):
        objective(num_features=6, num_segments=2, embedding_dim=4, **options).load_state_dict(saved)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: VideoLevel(num_features=6, num_segments=0, queue_size=4), "num_segments=0"),
        (lambda: TemporalOrder(num_features=6, num_segments=0), "num_segments=0"),
        (lambda: TemporalOrder(num_features=6, normalize="rows"), "normalize='rows'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_are_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build()
