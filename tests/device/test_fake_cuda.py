"""What the device of these tests notices, and what it lets pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vclr_lightning.core.transfer import to_device

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu", non_blocking=True),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "mask assigned": lambda x: x.__setitem__(x > 0, torch.ones(3, device=x.device)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": torch.unique,
    "bincount": lambda x: torch.bincount(x.long().flatten()),
    "repeat_interleave": lambda x: x.repeat_interleave(x[:, 0].long(), 0),
    "equal": lambda x: torch.equal(x, x),
    "slice": lambda x: x[: x[0, 0].long()],
    "list as an index": lambda x: x[[0, 1]],
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "torch.tensor": lambda x: torch.tensor([1.0], device=x.device),
    "number assigned": lambda x: x.__setitem__(x[:, 0].long(), 1.0),
    "pageable": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "synchronous": lambda x: torch.ones(2).pin_memory().to(x.device),
    "eigenvalues": lambda x: torch.linalg.eigvalsh(x @ x.T),
}
MIXED: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x + torch.ones(2, 2),
    "index": lambda x: x[torch.tensor([0])],
    "gather": lambda x: x.gather(0, torch.zeros(1, 2, dtype=torch.long)),
    "index_select": lambda x: x.index_select(0, torch.tensor([0])),
}
FREE: dict[str, Callable[[Tensor], Any]] = {
    "numbers": lambda x: 2 * x + torch.tensor(1.0),
    "number filled in": lambda x: x.index_fill_(0, x[:, 0].long(), 1.0),
    "mask filled": lambda x: x.__setitem__(x > 0, 1.0),
    "place": lambda x: x[0],
    "shape": lambda x: len(x) + x.numel(),
    "made there": lambda x: torch.arange(2, device=x.device),
    "host alone": lambda x: torch.randperm(4)[[0, 1]].tolist(),
    "sent": lambda x: x[to_device(torch.randperm(2), x.device)],
}


@pytest.fixture
def x(cuda: Any) -> Tensor:
    return torch.zeros(2, 2, device="cuda")


@pytest.mark.parametrize("what", WAITS)
def test_waits_are_noticed(what: str, x: Tensor) -> None:
    with pytest.raises(AssertionError, match=r"read|copied|copies"):
        WAITS[what](x)


@pytest.mark.parametrize("what", MIXED)
def test_mixed_devices_are_noticed(what: str, x: Tensor) -> None:
    with pytest.raises(AssertionError, match="host"):
        MIXED[what](x)


@pytest.mark.parametrize("what", FREE)
def test_what_waits_for_nothing_passes(what: str, x: Tensor) -> None:
    FREE[what](x)
