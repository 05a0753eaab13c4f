"""CVRL's objective: both directions, and a head that normalises both views together."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.objectives import CVRL

BATCH: Any = {"video_id": torch.arange(4)}


def _features(videos: int = 4, width: int = 6) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(videos, 1, width, dtype=torch.float64, generator=rng).requires_grad_()
        for name in ("first", "second")
    }


def _embedded(cvrl: CVRL, features: dict[str, Tensor]) -> list[list[float]]:
    """The head, written out on both views as one batch."""
    x = torch.cat([features["first"], features["second"]])[:, 0].detach().numpy()
    state = {name: value.detach().numpy() for name, value in cvrl.head.state_dict().items()}
    for i in range(1, 4):
        x = x @ state[f"linear{i}.weight"].T + state[f"linear{i}.bias"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = np.maximum(0, x * state[f"norm{i}.weight"] + state[f"norm{i}.bias"])
    x = x @ state["last.weight"].T + state["last.bias"]
    return [(row / np.linalg.norm(row)).tolist() for row in x]


def test_the_loss_is_the_sum_of_both_directions_over_all_other_clips() -> None:
    torch.manual_seed(0)
    cvrl = CVRL(num_features=6, embedding_dim=5).double()
    features = _features()
    out = cvrl(features, BATCH)
    z = _embedded(cvrl, features)
    directions = []
    for side in (0, 4):
        losses = []
        for i in range(side, side + 4):
            total = sum(exp(np.dot(z[i], z[j]) / 0.1) for j in range(8) if j != i)
            losses.append(-log(exp(np.dot(z[i], z[(i + 4) % 8]) / 0.1) / total))
        directions.append(np.mean(losses))
    assert out.loss.item() == pytest.approx(sum(directions), abs=1e-10)
    assert not out.pending
    out.loss.backward()
    for side in features.values():  # both clips learn
        assert side.grad is not None
        assert side.grad.abs().sum() > 0


def test_the_head_has_the_published_size() -> None:
    cvrl = CVRL(num_features=2048)
    assert sum(parameter.numel() for parameter in cvrl.parameters()) == 12_863_616
    norms = [layer for layer in cvrl.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert [(norm.momentum, norm.eps) for norm in norms] == [(0.003, 1e-5)] * 3
    assert not list(cvrl.momentum_pairs())


def test_views_are_arguments() -> None:
    other = CVRL(num_features=4, first="a_first", second="fast:b_second", hidden=7, layers=1)
    assert [r.views for r in other.requests().values()] == [("a_first",), ("b_second",)]
    assert other.requests()["second"].encoder == "fast"
    assert other.head.last.in_features == 7  # type: ignore[union-attr]


def test_mistakes() -> None:
    with pytest.raises(UserError, match="temperature=0"):
        CVRL(num_features=4, temperature=0)
    with pytest.raises(UserError, match="layers=-1"):
        CVRL(num_features=4, layers=-1)
    with pytest.raises(UserError, match="set batch_size to at least 2"):
        CVRL(num_features=6)({k: v.float() for k, v in _features(1).items()}, BATCH)
