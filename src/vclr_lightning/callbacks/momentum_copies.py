"""Modules that follow others by an exponential moving average of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vclr_lightning.callbacks.feature_callback import log_equal
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.momentum import (
    MomentumSchedule,
    check_momentum,
    momentum_at,
    momentum_update,
)
from vclr_lightning.evaluation.layers import find_layer

Pairs = Mapping[str, str] | Callable[[LightningModule], Iterable[tuple[nn.Module, nn.Module]]]

_USUAL = {
    "encoder_q": "encoder_k",
    "encoder": "momentum_encoder",
    "backbone": "momentum_backbone",
    "projector": "momentum_projector",
    "projection_head": "momentum_projection_head",
    "online_encoder": "target_encoder",
    "online_projector": "target_projector",
    "student": "teacher",
}


class MomentumUpdate(CheckedCallback):
    """Sets ``follower <- m * follower + (1 - m) * followed`` after each optimizer step.

    As the key encoder of MoCo (He et al. 2020, Section 3.2), the target of BYOL, the teacher of
    DINO. Followers start as copies, get no gradient, and move only after a step that was taken,
    not after one that the gradient scaler skips. The number of updates is part of checkpoints, so a
    schedule continues. Logs ``momentum/value``.

    Args:
        pairs: names of the modules that are followed, each with the name of its follower; or a
            function of the LightningModule that returns such pairs of modules. ``None``: pairs of
            usual names, such as ``student`` and ``teacher``.
        momentum: a number, or a schedule of step and number of steps, such as
            :class:`~vclr_lightning.core.momentum.CosineMomentum`.
        optimizer: position of the optimizer whose steps count, where there are several.
        copy: start followers as copies; otherwise as they are.
        buffers: also copy buffers, such as BatchNorm's statistics, after each update; by default
            a follower keeps its own.
        name: in logs and checkpoints; of several callbacks, each needs another one.

    Raises:
        UserError: ``momentum`` is out of range; or, from the start of training, there is no such
            module, or two do not have the same weights.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> from vclr_lightning.core.momentum import CosineMomentum
        >>> follow = MomentumUpdate(pairs={"net": "slow_net"}, momentum=CosineMomentum(start=0.99))
        >>> trainer = Trainer(callbacks=[follow], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        *,
        pairs: Pairs | None = None,
        momentum: float | MomentumSchedule = 0.996,
        optimizer: int = 0,
        copy: bool = True,
        buffers: bool = False,
        name: str = "momentum",
    ) -> None:
        super().__init__()
        check_momentum(momentum, what="of the update")
        self.pairs, self.momentum, self.optimizer = pairs, momentum, optimizer
        self.copy, self.buffers = copy, buffers
        self.updates = 0
        self.name = name
        self._value: float | None = None
        self._handle: Any = None

    @property
    def state_key(self) -> str:
        kind = type(self).__name__
        return kind if self.name == "momentum" else f"{kind}({self.name})"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the followers, before DDP and the optimizers see them."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        for followed, follower in self._pairs(pl_module):
            shapes = [[p.shape for p in one.parameters()] for one in (followed, follower)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{type(follower).__name__} cannot follow {type(followed).__name__}: their "
                    "weights have other shapes; make it a copy"
                )
            follower.requires_grad_(False)
            if self.copy and not self.updates:
                follower.load_state_dict(followed.state_dict())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not 0 <= self.optimizer < len(trainer.optimizers):
            raise UserError(
                f"optimizer={self.optimizer} of the momentum update is none of the module's "
                f"{len(trainer.optimizers)}"
            )
        pairs = list(self._pairs(pl_module))

        def total_steps() -> int:
            steps = trainer.estimated_stepping_batches
            if not 0 < steps < float("inf"):
                raise UserError(
                    "a schedule of the momentum needs the length of the run; set epochs"
                )
            return int(steps)

        def update(optimizer: Any, *_: Any) -> None:
            found_inf = getattr(optimizer, "found_inf", None)  # fused ones skip by themselves
            if found_inf is not None and found_inf.item():
                return
            self._value = momentum_at(self.momentum, self.updates, total_steps)
            momentum_update(pairs, self._value)
            if self.buffers:
                _copy_buffers(pairs)
            self.updates += 1

        self._release()
        self._handle = trainer.optimizers[self.optimizer].register_step_post_hook(update)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        values = {} if self._value is None else {f"{self.name}/value": self._value}
        log_equal(pl_module, values, on_step=True, on_epoch=False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _pairs(self, module: LightningModule) -> Iterator[tuple[nn.Module, nn.Module]]:
        if callable(self.pairs):
            yield from self.pairs(module)
            return
        pairs = self.pairs
        if pairs is None:
            own = dict(module.named_children())
            pairs = {one: other for one, other in _USUAL.items() if one in own and other in own}
            if not pairs:
                raise UserError(
                    f"{type(module).__name__} has no pair of modules with usual names, such as "
                    "student and teacher; name them (pairs=)"
                )
        for followed, follower in pairs.items():
            yield find_layer(module, followed), find_layer(module, follower)


@torch.no_grad()
def _copy_buffers(pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
    for followed, follower in pairs:
        for own, other in zip(follower.buffers(), followed.buffers(), strict=True):
            own.copy_(other)
