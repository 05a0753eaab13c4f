"""The queue against a plain model of it, and against the reference contents."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.queue import KeyQueue

REFERENCE = Path(__file__).parents[1] / "reference"


@settings(deadline=None, max_examples=80)
@given(size=st.integers(1, 9), pushes=st.lists(st.integers(0, 14), max_size=8))
def test_holds_the_last_keys_in_order(size: int, pushes: list[int]) -> None:
    queue = KeyQueue(size, 2)
    start = queue.rows.clone()
    # A deque of what has been there: (key, id, step), the random start included.
    model = deque([(row, -1, -1) for row in start.tolist()], maxlen=size)
    pushed = 0
    for step, count in enumerate(pushes):
        ids = torch.arange(pushed, pushed + count)
        keys = torch.stack([ids.float(), ids.float() + 0.5], dim=1)
        queue.push(keys, ids, step)
        model.extend(zip(keys.tolist(), ids.tolist(), [step] * count, strict=True))
        pushed += count
        assert int(queue.pointer) == pushed % size
        oldest_first = (torch.arange(size) + queue.pointer) % size
        assert queue.rows[oldest_first].tolist() == [key for key, _, _ in model]
        assert queue.ids[oldest_first].tolist() == [number for _, number, _ in model]
        assert queue.inserted_at[oldest_first].tolist() == [at for _, _, at in model]
        assert float(queue.fill) == pytest.approx(min(1, pushed / size))
        ages = [step - at for _, _, at in model if at >= 0]
        assert float(queue.age(step)) == pytest.approx(np.mean(ages) if ages else 0)
        newest = queue.newest(3).tolist()
        assert newest == [key for key, _, _ in model][-3:]


def test_contents_and_pointers_equal_the_reference_over_wrap_around() -> None:
    figures = json.loads((REFERENCE / "g1_losses.json").read_text())
    with np.load(REFERENCE / "g1_losses.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for which, keys in (
        ("seco", ["k_same_inter", "k_diff1_inter", "k_diff2_inter"]),
        ("vclr", ["k_video"]),
    ):
        queue = KeyQueue(figures["K"], figures["D"])
        queue.rows.copy_(tensors[f"memory_{which}_init"])
        queue.pointer.fill_(figures[f"index_{which}_init"])
        for step in range(3):
            rows = torch.cat([tensors[f"step{step}.{key}"] for key in keys])
            queue.push(rows, torch.arange(len(rows)), step)
            expected = tensors[f"step{step}.memory_{which}"]
            torch.testing.assert_close(queue.rows, expected, atol=1e-6, rtol=0)
            assert int(queue.pointer) == figures["steps"][f"step{step}"][f"index_{which}_after"]


def test_starts_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = KeyQueue(8, 4, seed=3).rows
    torch.manual_seed(1)
    assert torch.equal(first, KeyQueue(8, 4, seed=3).rows)
    assert not torch.equal(first, KeyQueue(8, 4, seed=4).rows)
    assert not torch.equal(first, KeyQueue(8, 4, seed=(3, "other")).rows)


def test_both_starts() -> None:
    unit = KeyQueue(2000, 12, init="unit").rows
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2000))
    uniform = KeyQueue(2000, 12, init="uniform").rows
    assert uniform.abs().max() <= 0.5  # 1 / sqrt(12 / 3)
    assert uniform.abs().max() > 0.49
    assert uniform.mean().abs() < 0.01


def test_the_first_batch_fills_the_queue_over_and_over() -> None:
    queue = KeyQueue(8, 2, init="batch")
    keys, ids = torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9])
    assert queue.waiting
    queue.push(keys, ids, step=0)
    assert queue.ids.tolist() == [7, 8, 9, 7, 8, 9, 7, 8]
    assert torch.equal(queue.rows, keys[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert not queue.waiting
    queue.push(-keys, ids, step=1)
    assert torch.equal(queue.rows, torch.cat([keys, -keys, keys[:2]]))
    assert (float(queue.fill), int(queue.pointer)) == (1.0, 6)
    assert not KeyQueue(8, 2).waiting


def test_state_continues_exactly() -> None:
    queue, other = KeyQueue(5, 2, seed=0), KeyQueue(5, 2, seed=1)
    queue.push(torch.randn(7, 2), torch.arange(7), step=4)
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.push(torch.ones(2, 2), torch.tensor([50, 51]), step=5)
    for (name, ours), theirs in zip(queue.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_another_length_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match=r"rows .* 5 keys of 2 values, but .* 4 of 2.*queue_size=5"):
        KeyQueue(4, 2).load_state_dict(KeyQueue(5, 2).state_dict())


@pytest.mark.parametrize(
    ("size", "dim", "init", "said"),
    [(0, 4, "unit", "0 keys"), (4, 0, "unit", "of 0 values"), (4, 4, "zeros", "'zeros'")],
)
def test_impossible_queues_are_refused(size: int, dim: int, init: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        KeyQueue(size, dim, init=init)  # type: ignore[arg-type]


def test_keys_take_the_dtype_of_the_queue() -> None:
    queue = KeyQueue(4, 2).double()
    queue.push(torch.ones(1, 2), torch.tensor([3]), step=0)
    assert queue.rows.dtype == torch.float64
    assert queue.ids.dtype == torch.int64
