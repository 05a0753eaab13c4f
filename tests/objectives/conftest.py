"""Features and ids of a small batch, as a module would hand them to an objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

B, S, F = 4, 3, 6


@pytest.fixture
def frame_features() -> dict[str, Tensor]:
    """Of one query, its second view and two other frames, as each objective names them."""
    torch.manual_seed(0)
    query = torch.randn(B, 1, F, dtype=torch.float64, requires_grad=True)
    same = torch.randn(B, 1, F, dtype=torch.float64)
    others = torch.randn(B, 2, F, dtype=torch.float64)
    return {
        "query": query,
        **{f"key{i}": key for i, key in enumerate((same, *others.split(1, 1)))},
        "positive": same,
        **{f"negative{i}": other for i, other in enumerate(others.split(1, 1))},
    }


@pytest.fixture
def tuple_features() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "query": torch.randn(B, S, F, dtype=torch.float64, requires_grad=True),
        "key": torch.randn(B, S, F, dtype=torch.float64),
    }


@pytest.fixture
def batch() -> Any:
    identity, shuffled = [0, 1, 2], [2, 0, 1]
    return {
        "video_id": torch.arange(10, 10 + B),
        "group_id": torch.arange(B) // 2,
        "targets": {
            "anchor_order": torch.tensor([identity, shuffled, identity, shuffled]),
            "positive_order": torch.tensor([identity, identity, shuffled, shuffled]),
            "shuffled": torch.arange(4),
        },
    }


@pytest.fixture
def apart() -> Callable[[torch.nn.Module], None]:
    """Give the key side of an objective weights of its own, so that the sides can't be confused."""

    def change(objective: Any) -> None:
        objective.double()
        with torch.no_grad():
            for _, key in objective.momentum_pairs():
                for parameter in key.parameters():
                    parameter.add_(torch.randn_like(parameter))

    return change
