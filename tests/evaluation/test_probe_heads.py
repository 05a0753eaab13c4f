"""Classifiers of frozen features, against the formulas written with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.probe_heads import AttentiveHead, LinearHead


def standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_a_linear_head_is_blind_to_scale_and_shift() -> None:
    head = LinearHead(6, 3)
    torch.nn.init.normal_(head.linear.weight)
    x = torch.randn(5, 6)
    expected = standard(x.numpy()) @ head.linear.weight.detach().numpy().T
    assert head(x).detach().numpy() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(head(1000 * x + 7), head(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_of_one_query(heads: int) -> None:
    torch.manual_seed(0)
    head = AttentiveHead(4, 3, heads=heads)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 4)
    values = {k: v.detach().numpy() for k, v in head.named_parameters()}
    weights = np.split(values["attention.in_proj_weight"], 3)
    biases = np.split(values["attention.in_proj_bias"], 3)
    tokens = standard(x.numpy())
    query = values["query"] @ weights[0].T + biases[0]
    keys, contents = (tokens @ weights[i].T + biases[i] for i in (1, 2))
    found = np.empty((2, 4))
    for part in np.split(np.arange(4), heads):
        scores = keys[..., part] @ query[part] / np.sqrt(len(part))
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        found[:, part] = np.einsum("nt,ntf->nf", shares, contents[..., part])
    found = found @ values["attention.out_proj.weight"].T + values["attention.out_proj.bias"]
    expected = standard(found) @ values["linear.weight"].T + values["linear.bias"]
    assert head(x).detach().numpy() == pytest.approx(expected, abs=1e-4)
    order = torch.randperm(5)
    torch.testing.assert_close(head(x[:, order]), head(x), rtol=1e-4, atol=1e-4)


def test_heads_divide_the_features() -> None:
    with pytest.raises(UserError, match="heads=3 of the probe must divide its 4 features"):
        AttentiveHead(4, 2, heads=3)
