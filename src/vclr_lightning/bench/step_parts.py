"""Where the time of a training step goes, what it keeps in memory, and what a checkpoint holds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vclr_lightning.bench.parts import Parts
from vclr_lightning.bench.step import OneBatch, TrainingCost, batch_of, training_cost
from vclr_lightning.core.lightning import Callback, LightningModule, Trainer

STEP_PARTS = {
    "forward": "encode, compute the losses",
    "backward": "backward",
    "optimizer": "optimizer",
    "momentum": "momentum encoder and queues",
    "rest": "the rest",
}
"""Of a training step, with a description of each."""

_WARMUP = 2  # batches
_COUNTED = 1  # the batch whose operations are counted: the first may try the network beforehand


class StepParts(Callback):
    """Takes the time of each part of a step, after two batches, on any LightningModule.

    Attributes:
        saved: bytes that the first batch keeps for the backward pass.
        flops: floating-point operations of the second batch's convolutions, matrix products and
            attention, forward and backward; a multiply-add counts 2.
        checkpoint: bytes of the module's and the optimizers' state.
    """

    def __init__(self) -> None:
        self.saved = self.checkpoint = self.flops = 0
        self._spent: dict[str, float] = defaultdict(float)
        self._batches = self._last = 0.0
        self._device = torch.device("cpu")
        self._forward, self._batch = ExitStack(), ExitStack()
        self._operations = FlopCounterMode(display=False)
        self._finished = False  # this batch's step

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each of :data:`STEP_PARTS`, mean over batches."""
        batches = max(1.0, self._batches - _WARMUP)
        return {name: self._spent[name] / batches for name in STEP_PARTS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = trainer.strategy.root_device

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_unused: Any
    ) -> None:
        if self._batches == 0:
            known = {p.untyped_storage().data_ptr() for p in pl_module.parameters()}
            self._forward.enter_context(_counted_saves(known, self._saved))
        if self._batches == _COUNTED:
            self._batch.enter_context(self._operations)
        self._mark("between")

    def on_before_backward(self, *_unused: Any) -> None:
        self._forward.close()
        self._mark("forward")

    def on_after_backward(self, *_unused: Any) -> None:
        self._mark("backward")

    def on_before_optimizer_step(self, *_unused: Any) -> None:
        self._mark("rest")

    def after_optimizer(self, finish: Callable[..., None]) -> Callable[..., None]:
        """Return ``finish`` with its time taken, a module's work after the optimizer's step."""

        def timed(*args: Any, **kwargs: Any) -> None:
            self._mark("optimizer")
            finish(*args, **kwargs)
            self._mark("momentum")
            self._finished = True

        return timed

    def on_train_batch_end(self, *_unused: Any) -> None:
        if self._batches == _COUNTED:
            self._batch.close()
            self.flops = self._operations.get_total_flops()
        # A module without such work, or a batch of several that make a step.
        self._mark("rest" if self._finished else "optimizer")
        self._finished = False
        self._batches += 1

    def on_exception(self, *_unused: Any) -> None:
        self._forward.close()
        self._batch.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        states = [one.state_dict() for one in trainer.optimizers]
        self.checkpoint = _bytes_of([pl_module.state_dict(), *states])

    def _mark(self, name: str) -> None:
        """Add the time since the last mark to a part."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._batches >= _WARMUP:
            self._spent[name] += now - self._last
        self._last = now

    def _saved(self, size: int) -> None:
        self.saved += size


def step_parts(
    parts: Parts, samples: Sequence[Any], *, videos: int, seconds: float
) -> tuple[StepParts, TrainingCost | None]:
    """Train on one batch of ``videos`` for so many seconds, and take the time of each part."""
    timer = StepParts()
    if callable(finish := getattr(parts.module, "finish_step", None)):
        parts.module.finish_step = timer.after_optimizer(finish)  # type: ignore[assignment]
    data = OneBatch(parts.data, batch_of(samples, videos))
    try:
        cost = training_cost(parts, videos=videos, seconds=seconds, data=data, callbacks=[timer])
    finally:
        vars(parts.module).pop("finish_step", None)
    return timer, cost


def _counted_saves(known: set[int], add: Callable[[int], None]) -> Any:
    """Call ``add`` with the bytes of each storage that is saved for backward, once."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (key := storage.data_ptr()) not in known:
            known.add(key)
            add(storage.nbytes())
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


def _bytes_of(state: Any) -> int:
    """Return the bytes of all tensors within."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(_bytes_of, state.values()))
    return sum(map(_bytes_of, state)) if isinstance(state, list | tuple) else 0
