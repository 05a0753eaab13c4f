"""Whole training steps on a device that is not there: no wait, and nothing on the wrong side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer

from vclr_lightning.callbacks import MomentumUpdate
from vclr_lightning.modules import key_batchnorm

Pretraining = Callable[..., dict[str, Any]]
Fit = Callable[..., Trainer]

TINY = ("backbone=tiny", "backbone.width=8", "backbone.stages=1")
CHANNELS = "module.channels_last=true"
ONE_LOSS = (*TINY, "objective=inter")


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("32-true", ()),
        ("bf16-mixed", ("switch.batches=request", "objective=inter_intra", CHANNELS)),
    ],
)
def test_pretraining_does_not_wait(
    pretraining: Pretraining, fit: Fit, precision: str, options: tuple[str, ...]
) -> None:
    """The step, queues, every callback that a run has by default, and one for other modules."""
    follow = MomentumUpdate(pairs={"query_encoder": "key_encoder"})
    trainer = fit(pretraining(*TINY, *options), follow, precision=precision)
    assert trainer.global_step == 3


def test_the_gradient_scaler_alone_reads_whether_a_step_is_taken(
    pretraining: Pretraining, fit: Fit, cuda: Any
) -> None:
    cuda.allowed = ("torch/amp/grad_scaler.py",)
    trainer = fit(pretraining(*TINY, CHANNELS), precision="16-mixed")
    assert trainer.global_step == 3
    assert len(cuda.reads) == 3  # one a step


class Reading(Callback):
    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        batch["video_id"].tolist()


def test_a_callback_that_reads_the_device_is_noticed(pretraining: Pretraining, fit: Fit) -> None:
    with pytest.raises(AssertionError, match="a value is read"):
        fit(pretraining(*ONE_LOSS), Reading())


def test_an_index_that_is_sent_without_pinning_is_noticed(
    pretraining: Pretraining, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretraining(*ONE_LOSS)
    monkeypatch.setattr(key_batchnorm, "to_device", lambda x, device: x.to(device))
    with pytest.raises(AssertionError, match="copied to the device synchronously"):
        fit(run)
