"""The order loss: reordering, both norms, the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.order import join_tuples, normalize_tuple, order_loss, reorder


def test_reorder_takes_the_rows_that_each_sample_names() -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    order = torch.tensor([[2, 0, 1], [1, 1, 0]])
    out = reorder(x, order)
    for b in range(2):
        for i in range(3):
            assert torch.equal(out[b, i], x[b, order[b, i]])


@pytest.mark.parametrize(("over", "axis"), [("channels", 2), ("frames", 1)])
def test_norms(over: str, axis: int) -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    out = normalize_tuple(x, over).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(np.linalg.norm(out, axis=axis), 1)
    expected = x.numpy() / np.linalg.norm(x.numpy(), axis=axis, keepdims=True)
    np.testing.assert_allclose(out, expected)


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(UserError, match="'both'"):
        normalize_tuple(torch.ones(1, 2, 3), "both")  # type: ignore[arg-type]


def test_tuples_are_joined_anchor_first_in_their_orders() -> None:
    query, key = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    identity, shuffled = torch.tensor([[0, 1, 2]] * 2), torch.tensor([[1, 2, 0]] * 2)
    joined = join_tuples(query, key, shuffled, identity)
    expected = torch.cat([query[0, 1], query[0, 2], query[0, 0], *key[0]])
    assert torch.equal(joined[0], expected)
    assert joined.shape == (2, 12)


def test_loss_is_the_cross_entropy() -> None:
    logits, label = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 2, 2])
    share = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    expected = -np.log(share[np.arange(5), label.numpy()]).mean()
    assert order_loss(logits, label).item() == pytest.approx(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert order_loss(logits.bfloat16(), label).dtype == torch.float32
