from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vclr_lightning.callbacks.non_finite import NonFiniteGuard, NonFiniteLossError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:The .*dataloader. does not have many workers"
)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_its_videos(
    fit: Any, make_module: Any, tmp_path: Path, bad: float
) -> None:
    class Breaks(make_module):  # type: ignore[misc]
        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * bad if self.global_step == 7 else loss

    path_of = "video{}.mp4".format
    guard = NonFiniteGuard(directory=tmp_path, path_of=path_of, unit="videos")
    said = r"in step 7 \(batch 2 of epoch 1\); its videos 8 \(video8\.mp4\), 9"
    with pytest.raises(NonFiniteLossError, match=said) as e:
        fit(tmp_path, guard, module=Breaks())
    assert "last checkpoint is intact" in str(e.value)
    with (tmp_path / "non_finite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"video{i}.mp4" for i in (8, 9, 10, 11)]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(t.isfinite().all() for t in saved["state_dict"].values())
    fit(tmp_path, NonFiniteGuard(directory=tmp_path))  # a network in order goes on


def test_a_step_that_the_gradient_scaler_skips_is_not_its_business(
    fit: Any, make_module: Any, tmp_path: Path
) -> None:
    class Overflows(make_module):  # type: ignore[misc]
        def on_after_backward(self) -> None:
            if self.global_step == 3:
                for parameter in self.parameters():
                    parameter.grad.fill_(float("inf"))

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            closure()
            if all(p.grad.isfinite().all() for p in self.parameters()):
                optimizer.step(lambda: None)
            else:
                optimizer.zero_grad()

    module, _ = fit(tmp_path, NonFiniteGuard(directory=tmp_path), module=Overflows())
    assert all(p.isfinite().all() for p in module.parameters())
    assert not (tmp_path / "non_finite.csv").exists()


@pytest.mark.parametrize("bad", [float("nan"), 1e30])
def test_weights_that_nothing_can_be_computed_with_are_not_saved(
    fit: Any, make_module: Any, tmp_path: Path, bad: float
) -> None:
    class Breaks(make_module):  # type: ignore[misc]
        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step == 5:
                next(self.parameters()).data.mul_(bad)

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss if loss.isfinite() else loss.nan_to_num()  # hides it

    guard = NonFiniteGuard(directory=tmp_path, restart="name=NEW init")
    said = r"not finite, or too large .*\(name=NEW init=.*last\.ckpt\)"
    with pytest.raises(NonFiniteLossError, match=said):
        fit(tmp_path, guard, module=Breaks())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] <= 5
    assert all(t.isfinite().all() for t in saved["state_dict"].values())
