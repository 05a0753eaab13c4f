"""VINCE's objective: pairs of a batch written out, its queue, and the comparison of queries."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.objectives import Vince

REFERENCE = Path(__file__).parents[1] / "reference"
FIGURES = json.loads((REFERENCE / "vince.json").read_text())
VIDEOS, FRAMES, WIDTH = 3, 4, 6


@pytest.fixture
def batch() -> Any:
    return {"video_id": torch.tensor([7, 3, 9]), "group_id": torch.tensor([0, 0, 1])}


def features(seed: int, frames: int = FRAMES) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (VIDEOS, frames, WIDTH)
    return {
        "query": torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True),
        "key": torch.randn(shape, generator=rng, dtype=torch.float64),
    }


def embedded(head: nn.Module, x: Tensor) -> list[list[Any]]:
    """Unit vectors, by video and frame."""
    rows = head(x).detach().numpy()
    return [[v / np.linalg.norm(v) for v in video] for video in rows]


def term(positive: float, negatives: list[float], t: float) -> float:
    return -log(exp(positive / t) / (exp(positive / t) + sum(exp(n / t) for n in negatives)))


def test_every_pair_of_a_video_against_other_videos_and_the_queue(
    batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    vince = Vince(num_features=WIDTH, embedding_dim=5, queue_size=14, queue_init="unit")
    apart(vince)
    given = features(0)
    out = vince(given, batch)
    queries = embedded(vince.query_head, given["query"])
    keys = embedded(vince.key_head, given["key"])
    queue = list(vince.queue.rows.numpy())
    losses = []
    for v in range(VIDEOS):
        foreign = [key for w in range(VIDEOS) if w != v for key in keys[w]]
        for q in queries[v]:
            negatives = [float(q @ n) for n in [*foreign, *queue]]
            losses += [term(float(q @ k), negatives, 0.07) for k in keys[v]]
    assert len(losses) == VIDEOS * FRAMES * FRAMES
    assert out.loss.item() == pytest.approx(np.mean(losses))

    out.loss.backward()
    assert all(p.grad is not None for p in vince.query_head.parameters())
    assert all(p.grad is None for p in vince.key_head.parameters())
    vince.commit(out.pending, step=0)
    flat = np.array([key for video in keys for key in video])
    np.testing.assert_allclose(vince.queue.rows[:12].numpy(), flat, atol=1e-12)
    assert vince.queue.ids[:12].tolist() == [7] * 4 + [3] * 4 + [9] * 4
    assert int(vince.queue.pointer) == 12


def test_self_comparison_is_added_and_a_query_is_its_own_positive(
    batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    options: Any = {"num_features": WIDTH, "embedding_dim": 5, "queue_size": 14, "temperature": 0.2}
    vince = Vince(**options, queue_init="unit", self_temperature=0.03)
    apart(vince)
    given = features(1)
    out = vince(given, batch)
    queries = embedded(vince.query_head, given["query"])
    losses = []
    for v in range(VIDEOS):
        foreign = [other for w in range(VIDEOS) if w != v for other in queries[w]]
        for q in queries[v]:
            negatives = [float(q @ n) for n in foreign]
            losses += [term(float(q @ other), negatives, 0.03) for other in queries[v]]
    assert out.metrics["self_loss"].item() == pytest.approx(np.mean(losses))

    plain = Vince(**options, queue_init="unit").double()
    plain.load_state_dict(vince.state_dict())
    alone = plain(given, batch)
    assert out.loss.item() == pytest.approx(alone.loss.item() + np.mean(losses))
    assert "self_loss" not in alone.metrics


def test_the_queue_begins_with_one_batch_over_and_over(
    batch: Any, apart: Callable[[nn.Module], None]
) -> None:
    vince = Vince(num_features=WIDTH, embedding_dim=5, queue_size=31)
    apart(vince)
    given = features(2)
    out = vince(given, batch)
    queries = embedded(vince.query_head, given["query"])
    keys = embedded(vince.key_head, given["key"])
    rows = [(v, key) for v in range(VIDEOS) for key in keys[v]]
    repeated = [rows[i % 12] for i in range(31)]
    losses = []
    for v in range(VIDEOS):
        for q in queries[v]:
            # Of these keys, which are those of the batch itself, a query's own are no negatives.
            negatives = [float(q @ key) for w, key in [*rows, *repeated] if w != v]
            losses += [term(float(q @ k), negatives, 0.07) for k in keys[v]]
    assert out.loss.item() == pytest.approx(np.mean(losses))

    assert (vince.queue.inserted_at < 0).all()  # nothing is written before the step is taken
    vince.commit(out.pending, step=0)
    np.testing.assert_allclose(vince.queue.rows.numpy(), [key for _, key in repeated], atol=1e-12)
    assert int(vince.queue.pointer) == 12
    later = vince(features(3), batch)
    vince.commit(later.pending, step=1)
    np.testing.assert_allclose(vince.queue.rows[24:].numpy(), [k for _, k in repeated[24:]])
    assert vince.queue.inserted_at.tolist() == [0] * 12 + [1] * 12 + [0] * 7


def test_a_queue_that_was_saved_is_not_filled_again(batch: Any) -> None:
    first, second = (Vince(num_features=WIDTH, embedding_dim=5, queue_size=31) for _ in range(2))
    first.double()
    first.commit(first(features(4), batch).pending, step=0)
    second.double().load_state_dict(first.state_dict())
    before = second.queue.rows.clone()
    second.commit(second(features(5), batch).pending, step=1)
    assert torch.equal(second.queue.rows[24:], before[24:])


def test_a_video_that_is_twice_in_a_batch_is_no_negative_of_itself() -> None:
    twice: Any = {"video_id": torch.tensor([7, 7, 9])}
    vince = Vince(num_features=WIDTH, embedding_dim=5, queue_size=9, queue_init="unit").double()
    given = features(6)
    queries = embedded(vince.query_head, given["query"])
    keys = embedded(vince.key_head, given["key"])
    videos = [queries[0] + queries[1], queries[2]], [keys[0] + keys[1], keys[2]]
    losses = []
    for v in range(2):
        for q in videos[0][v]:
            negatives = [float(q @ n) for n in [*videos[1][1 - v], *vince.queue.rows.numpy()]]
            losses += [term(float(q @ k), negatives, 0.07) for k in videos[1][v]]
    assert len(losses) == 8 * 8 + 4 * 4
    assert vince(given, twice).loss.item() == pytest.approx(np.mean(losses))


def test_other_numbers_of_queries_than_of_keys(batch: Any) -> None:
    vince = Vince(num_features=WIDTH, embedding_dim=5, queue_size=9, queue_init="unit").double()
    given = {"query": features(7, 1)["query"], "key": features(8, 2)["key"]}
    queries = embedded(vince.query_head, given["query"])
    keys = embedded(vince.key_head, given["key"])
    losses = []
    for v in range(VIDEOS):
        foreign = [key for w in range(VIDEOS) if w != v for key in keys[w]]
        (q,) = queries[v]
        negatives = [float(q @ n) for n in [*foreign, *vince.queue.rows.numpy()]]
        losses += [term(float(q @ k), negatives, 0.07) for k in keys[v]]
    assert vince(given, batch).loss.item() == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("own_mask", ["video", "group"])
def test_own_mask_leaves_earlier_keys_out(batch: Any, own_mask: Any) -> None:
    vince = Vince(
        num_features=WIDTH, embedding_dim=5, queue_size=12, queue_init="unit", own_mask=own_mask
    ).double()
    vince.commit(vince(features(9), batch).pending, step=0)
    given = features(10)
    queries = embedded(vince.query_head, given["query"])
    keys = embedded(vince.key_head, given["key"])
    groups = [0, 0, 1] if own_mask == "group" else [0, 1, 2]
    queued = [(groups[i // 4], row) for i, row in enumerate(vince.queue.rows.numpy())]
    losses = []
    for v in range(VIDEOS):
        foreign = [key for w in range(VIDEOS) if w != v for key in keys[w]]
        kept = [row for group, row in queued if group != groups[v]]
        for q in queries[v]:
            negatives = [float(q @ n) for n in [*foreign, *kept]]
            losses += [term(float(q @ k), negatives, 0.07) for k in keys[v]]
    assert vince(given, batch).loss.item() == pytest.approx(np.mean(losses))


class Given(nn.Module):
    """Hands embeddings through."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_losses_and_queue_of_three_steps_are_those_of_vince() -> None:
    frames, width = FIGURES["frames"], FIGURES["D"]
    options: Any = {"embedding_dim": width, "queue_size": FIGURES["K"]}
    vince = Vince(num_features=width, self_temperature=FIGURES["t_self"], **options).double()
    vince.query_head, vince.key_head = Given(), Given()  # type: ignore[assignment]

    def named(name: str) -> Tensor:
        shape = (FIGURES["videos"] * frames, width)
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        return torch.from_numpy(values).unflatten(0, (FIGURES["videos"], frames))

    batch: Any = {"video_id": torch.arange(FIGURES["videos"])}
    with np.load(REFERENCE / "vince.npz") as arrays:
        queues = [arrays["queue_init"], *(arrays[f"step{step}.queue"] for step in range(3))]
    # There, another batch than the first one fills the queue.
    fill = nn.functional.normalize(named("vince.fill"), dim=2)
    vince.commit({"keys": fill, "ids": batch["video_id"]}, step=0)
    # There, the last repetition wraps onto the first rows.
    wrapped = -FIGURES["K"] % (FIGURES["videos"] * frames)
    np.testing.assert_allclose(vince.queue.rows[wrapped:].numpy(), queues[0][wrapped:], atol=1e-12)
    vince.queue.rows[:wrapped] = torch.from_numpy(queues[0][:wrapped])
    vince.queue.pointer.zero_()
    for step, figures in enumerate(FIGURES["steps"]):
        given = {"query": named(f"vince.step{step}.q"), "key": named(f"vince.step{step}.k")}
        out = vince(given, batch)
        expected = figures["loss"] + figures["loss_self"]
        assert out.loss.item() == pytest.approx(expected, abs=1e-9)
        assert out.metrics["self_loss"].item() == pytest.approx(figures["loss_self"], abs=1e-9)
        assert out.metrics["top1"].item() == pytest.approx(figures["accuracy"], abs=1e-6)
        vince.commit(out.pending, step)
        np.testing.assert_allclose(vince.queue.rows.numpy(), queues[step + 1], atol=1e-12)
        assert int(vince.queue.pointer) == figures["pointer_after"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": 0}, "temperature=0"),
        ({"self_temperature": -1}, "temperature=-1"),
        ({"own_mask": "clip"}, "own_mask='clip'"),
        ({"queue_init": "ones"}, "queue_init='ones'"),
        ({"query": "a b"}, "describes no view"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Vince(num_features=6, queue_size=4, **wrong).requests()
