"""The momentum update against the formula, tensor by tensor."""

from __future__ import annotations

import torch
from torch import nn

from vclr_lightning.core.momentum import momentum_copy, momentum_update


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_parameters_follow_and_buffers_do_not() -> None:
    query, other = network(0).double(), network(1).double()
    key = momentum_copy(other)
    query[1].running_mean.fill_(5)
    before = [p.clone() for p in key.parameters()]
    momentum_update([(query, key)], 0.9)
    for q, k, old in zip(query.parameters(), key.parameters(), before, strict=True):
        torch.testing.assert_close(k, 0.9 * old + 0.1 * q.detach())
    assert torch.equal(key[1].running_mean, torch.zeros(4).double())


def test_extremes() -> None:
    query, key = network(0), momentum_copy(network(1))
    kept = key[0].weight.clone()
    momentum_update([(query, key)], 1.0)
    assert torch.equal(key[0].weight, kept)
    momentum_update([(query, key)], 0.0)
    assert torch.equal(key[0].weight, query[0].weight)
    momentum_update([], 0.5)


def test_copy_is_frozen_and_apart() -> None:
    query = network(0)
    key = momentum_copy(query)
    assert not any(p.requires_grad for p in key.parameters())
    assert all(p.requires_grad for p in query.parameters())
    with torch.no_grad():
        query[3].weight.fill_(1)
    assert not torch.equal(key[3].weight, query[3].weight)
