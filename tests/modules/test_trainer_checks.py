"""What the module asks of a Trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.schedules import WarmupCosine
from vclr_lightning.modules.trainer_checks import check_trainer

# Lightning's own, about torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

CPU = torch.device("cpu")


def quiet(**options: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


def test_broadcast_queues_are_refused() -> None:
    check_trainer(quiet(), device=CPU, synchronised=False)
    kept = quiet(strategy=DDPStrategy(broadcast_buffers=False), devices=1)
    check_trainer(kept, device=CPU, synchronised=False)
    with pytest.raises(UserError, match=r"DDPStrategy\(broadcast_buffers=False\)"):
        check_trainer(quiet(strategy="ddp", devices=1), device=CPU, synchronised=False)


def test_sync_batchnorm_on_a_cpu_is_refused(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    module = make_module(norm=True, batchnorm="sync")
    with pytest.raises(
        UserError, match=r"'sync' of a momentum encoder works on CUDA devices only, not on cpu"
    ):
        fit(module, [make_batch(range(4))])


def test_shuffling_in_one_process_is_refused(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    module = make_module(norm=True, batchnorm="shuffle")
    with pytest.raises(UserError, match="nothing to shuffle over"):
        fit(module, [make_batch(range(4))])


@pytest.mark.parametrize(
    ("options", "steps_per_epoch", "epochs"),
    [
        ({"max_epochs": 4}, 6, 4),
        ({"max_epochs": 4, "accumulate_grad_batches": 4}, 2, 4),
        ({"max_epochs": 4, "limit_train_batches": 3}, 3, 4),
        ({"max_epochs": -1, "max_steps": 9}, 6, 1.5),
    ],
)
def test_schedules_count_optimizer_steps(
    make_module: Callable[..., Any],
    make_batch: Callable[..., Any],
    fit: Callable[..., Any],
    options: dict[str, Any],
    steps_per_epoch: int,
    epochs: float,
) -> None:
    told: dict[str, Any] = {}

    def scheduler(optimizer: Any, **length: Any) -> WarmupCosine:
        told.update(length)
        return WarmupCosine(optimizer, warmup_epochs=0.5, **length)

    module = make_module(scheduler=scheduler)
    trainer = fit(module, [make_batch(range(2))] * 6, **options)
    assert told == {"steps_per_epoch": steps_per_epoch, "epochs": epochs}
    assert trainer.global_step == steps_per_epoch * epochs
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == trainer.global_step
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-6)


def test_a_schedule_without_an_end_is_refused(
    make_module: Callable[..., Any], make_batch: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    module = make_module(scheduler=partial(WarmupCosine))
    with pytest.raises(UserError, match="needs the length of the run"):
        fit(module, [make_batch(range(2))], max_epochs=-1)


@pytest.mark.parametrize(
    ("momentum", "said"), [(0.1, ""), (0.001, "over about 1000 steps"), (None, "over all steps")]
)
def test_running_statistics_that_lag_are_warned_of(
    make_module: Callable[..., Any],
    make_batch: Callable[..., Any],
    fit: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    momentum: float | None,
    said: str,
) -> None:
    module = make_module(norm=True)
    module.query_encoder.norm.momentum = momentum
    with caplog.at_level("WARNING", logger="vclr_lightning"):
        fit(module, [make_batch(range(4))])
    assert len(caplog.messages) == bool(said)
    assert all(said in message for message in caplog.messages)
