"""Measure how the gradients of several losses agree on the weights that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.callbacks.feature_callback import check_name, log_equal
from vclr_lightning.core.distributed import average_in_place
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.functional.monitoring import gradient_conflict

Losses = str | Sequence[str] | Mapping[str, str] | Callable[..., Mapping[str, Tensor]]


class GradientConflict(CheckedCallback):
    """Logs the norm of each loss's gradient on the shared weights, and the cosines between them.

    Every few batches: ``gradients/norm/A`` and ``gradients/cosine/A-B`` (Yu et al., "Gradient
    surgery for multi-task learning", 2020): below 0, a step for one loss raises the other. The
    gradients of the step itself do not change; each measured batch costs one more backward pass
    per loss, and memory for its gradient. They are averaged over the ranks.

    Args:
        losses: where the losses of a training step are found, with their graphs:

            - name of an entry of the dictionary that ``training_step`` returns, which holds the
              losses by name (with automatic optimization)
            - names of submodules that return a loss, or an object with an attribute ``loss``;
              ``"objectives.*"`` for all of these; a mapping renames them
            - a function of module and batch that returns losses by name; it is called before the
              step, and running statistics and random numbers are put back

            ``None``: the submodules ``objectives.*`` where there are any, else ``"losses"``.
        trunk: name of the submodule whose weights are shared, or a function of the module that
            returns them; ``None``: all weights that two losses or more depend on.
        weights: of the losses, by name, multiplied with their gradients; 1 where left out.
        every_n_steps: training batches between two measurements.
        name: in the logs; of several callbacks, each needs another one.

    Raises:
        UserError: in the first measurement, there are no losses, or they have no gradient.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> monitor = GradientConflict(losses=lambda module, batch: module.losses(batch))
        >>> trainer = Trainer(callbacks=[monitor], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        *,
        losses: Losses | None = None,
        trunk: str | Callable[[LightningModule], Any] | None = None,
        weights: Mapping[str, float] | None = None,
        every_n_steps: int = 100,
        name: str = "gradients",
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise UserError(f"every_n_steps={every_n_steps} of the gradients must be 1 or more")
        self.losses = losses
        self.trunk = trunk
        self.weights = dict(weights or {})
        self.every_n_steps = every_n_steps
        self.name = name
        self._found: dict[str, Tensor] | None = None  # while a batch is measured
        self._handles: list[Any] = []
        self._wrapped: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_name(trainer, self)
        losses = self.losses
        if losses is None:
            own = [name for name, _ in pl_module.named_modules() if fnmatch(name, "objectives.*")]
            losses = "objectives.*" if own else "losses"
        self._key = losses if isinstance(losses, str) and not _is_pattern(losses) else ""
        self._modules = {} if self._key or callable(losses) else _modules(pl_module, losses)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Counted as it will be when this batch is done.
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % self.every_n_steps:
            return
        if callable(self.losses):
            with random_state_kept(), _buffers_kept(pl_module), torch.enable_grad():
                with trainer.precision_plugin.forward_context():
                    losses = dict(self.losses(pl_module, batch))
                self._measure(trainer, pl_module, losses)
            return
        self._found = {}
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(partial(self._keep, name)))
        if self._key:
            step, own = pl_module.training_step, pl_module.__dict__.get("training_step")
            self._wrapped = partial(self._stepped, pl_module, step, own)
            pl_module.__dict__["training_step"] = self._wrapped

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        if self._found is None:
            return
        found, self._found = self._found, None
        self._measure(trainer, pl_module, found)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._release(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._release(pl_module)

    def _release(self, pl_module: LightningModule) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._found = [], None
        if self._wrapped is not None and pl_module.__dict__.get("training_step") is self._wrapped:
            del pl_module.__dict__["training_step"]
        self._wrapped = None

    def _stepped(
        self, module: LightningModule, step: Any, own: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take the losses out of what the training step returns, once."""
        module.__dict__.pop("training_step", None)
        outputs = step(*args, **kwargs)
        if own is not None:
            module.__dict__["training_step"] = own
        losses = outputs.get(self._key) if isinstance(outputs, Mapping) else None
        if isinstance(losses, Mapping) and self._found is not None:
            self._found |= losses
        return outputs

    def _keep(self, name: str, _: nn.Module, inputs: Any, output: Any) -> None:
        loss = output if isinstance(output, Tensor) else getattr(output, "loss", None)
        if self._found is not None and isinstance(loss, Tensor):
            self._found[name] = loss

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, losses: Mapping[str, Tensor]
    ) -> None:
        where = self._key or ", ".join(self._modules) or "the function"
        if len(losses) < 2:
            raise UserError(
                f"gradients are compared of two losses or more, but {where} gives "
                f"{', '.join(losses) or 'none'} before the backward pass; name submodules that "
                "return losses, or give a function (losses=)"
            )
        for name, loss in losses.items():
            if not loss.requires_grad or loss.ndim:
                what = f"has shape {tuple(loss.shape)}" if loss.ndim else "is detached"
                raise UserError(f"the loss {name} of {where} {what}; give a number with its graph")
        # Small gradients are lost in half precision unless they are scaled as the step's are.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        weights = self._weights_of(pl_module)
        pulls = {}
        with _buffers_kept(pl_module):  # activation checkpointing computes the forward once more
            for name, loss in losses.items():
                try:
                    pulls[name] = torch.autograd.grad(
                        loss * scale, weights, retain_graph=True, allow_unused=True
                    )
                except RuntimeError as error:  # of compiled modules, reentrant checkpointing
                    raise UserError(
                        f"the gradient of the loss {name} of {where} cannot be taken beside the "
                        f"step's own: {error}"
                    ) from error
        reached = [
            sum(own is not None for own in some) for some in zip(*pulls.values(), strict=True)
        ]
        least = 2 if self.trunk is None else 1
        shared = [i for i, number in enumerate(reached) if number >= least]
        if not shared:
            raise UserError(f"the losses {', '.join(losses)} share no weights; name them (trunk=)")
        rows = torch.stack(
            [
                torch.cat([_flat(own[i], weights[i]) for i in shared]) * self.weights.get(name, 1.0)
                for name, own in pulls.items()
            ]
        )
        average_in_place([rows])
        norms, cosines = gradient_conflict(rows / scale)
        values = {f"{self.name}/norm/{name}": x for name, x in zip(losses, norms, strict=True)}
        for (i, one), (j, other) in combinations(enumerate(losses), 2):
            values[f"{self.name}/cosine/{one}-{other}"] = cosines[i, j]
        log_equal(pl_module, values, on_step=True, on_epoch=False)

    def _weights_of(self, pl_module: LightningModule) -> list[Tensor]:
        if callable(self.trunk):
            found = list(self.trunk(pl_module))
        else:
            trunk = pl_module if self.trunk is None else find_layer(pl_module, self.trunk)
            found = list(trunk.parameters())
        return [weight for weight in found if weight.requires_grad]


def _flat(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return (torch.zeros_like(weight) if gradient is None else gradient).flatten().float()


def _is_pattern(name: str) -> bool:
    return "." in name or "*" in name


def _modules(module: nn.Module, losses: Any) -> dict[str, nn.Module]:
    """Return the submodules that return losses, by the names in the logs."""
    if isinstance(losses, Mapping):
        return {name: find_layer(module, path) for name, path in losses.items()}
    found = {}
    for path in [losses] if isinstance(losses, str) else losses:
        if "*" not in path:
            found[path.rpartition(".")[2]] = find_layer(module, path)
            continue
        depth = path.count(".")
        for name, layer in module.named_modules():
            if fnmatch(name, path) and name.count(".") == depth:
                found[name.rpartition(".")[2]] = layer
    if not found:
        raise UserError(f"{type(module).__name__} has no submodules {losses} that return losses")
    return found


@contextmanager
def _buffers_kept(module: nn.Module) -> Any:
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)  # as if it had never changed, for graphs that keep it
