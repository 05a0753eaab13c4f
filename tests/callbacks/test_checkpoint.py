from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from vclr_lightning.callbacks.checkpoint import ResumableCheckpoint
from vclr_lightning.core.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:The .*dataloader. does not have many workers",
    "ignore:.*srun.*",
)

HOOKS = [
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
]


class Killed(BaseException):
    pass


class KillAt(Callback):
    """Ends the run in the given call of a hook, before anything else is done there."""

    def __init__(self, hook: str, call: int) -> None:
        self.calls = 0

        def kill(*args: Any) -> None:
            self.calls += 1
            if self.calls == call:
                raise Killed

        setattr(self, hook, kill)


def _final(folder: Path) -> tuple[dict[str, Any], str]:
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return saved, (folder / "metrics.csv").read_text()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_anywhere_the_run_ends_bit_equal(fit: Any, tmp_path: Path, accumulate: int) -> None:
    fit(tmp_path / "whole", accumulate_grad_batches=accumulate)
    expected, rows = _final(tmp_path / "whole")
    rng = random.Random(accumulate)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        for _ in range(rng.randint(1, 3)):
            hook, call = rng.choice(HOOKS), rng.randint(1, 8)
            try:
                fit(folder, KillAt(hook, call), accumulate_grad_batches=accumulate)
            except Killed:
                continue
        fit(folder, accumulate_grad_batches=accumulate)
        saved, again = _final(folder)
        assert again == rows
        for part in expected:
            assert _same(saved[part], expected[part]), part
