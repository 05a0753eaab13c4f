"""Watch what the queues of negatives hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.callbacks.feature_callback import log_equal
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.queue import KeyQueue
from vclr_lightning.functional.collapse import rankme
from vclr_lightning.functional.monitoring import mean_similarity, stale_share

Queue = str | Callable[[LightningModule], Tensor]

_RANKED = 1024  # keys: enough to see a collapse, few enough for a cheap decomposition


class QueueMonitor(CheckedCallback):
    """Logs the state of queues of keys, such as MoCo's negatives, every few batches.

    ``queue/NAME/similarity``, the mean cosine of two keys (He et al., "Momentum contrast for
    unsupervised visual representation learning", 2020, Section 3.2, wants the queue consistent, not
    uniform: near 1 it has collapsed), and ``queue/NAME/rankme`` of up to 1024 keys. ``fill``: the
    share of rows that hold keys; of another project's buffer, that have changed in training (which
    is part of checkpoints). Of a
    :class:`~vclr_lightning.core.queue.KeyQueue`, which knows when each key was added and of which
    video, also ``age``, the mean in optimizer steps, and ``stale``, the share of keys whose video
    has a newer key. Nothing is drawn and nothing changes.

    Args:
        queues: where they are, by name in the logs: name of a buffer or submodule, or a function of
            the module that returns keys; one name, or several. ``None``: every ``KeyQueue``; where
            there is none, the buffer ``queue``.
        dim: of the buffers along which the keys lie: 0 for ``(K, D)``, 1 for ``(D, K)`` as in MoCo.
        every_n_steps: training batches between two measurements.

    Raises:
        UserError: from the start of training: there is no such queue.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> monitor = QueueMonitor(queues="queue", dim=1)  # of MoCo's code
        >>> trainer = Trainer(callbacks=[monitor], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        *,
        queues: Queue | Sequence[str] | Mapping[str, Queue] | None = None,
        dim: int = 0,
        every_n_steps: int = 100,
    ) -> None:
        super().__init__()
        if every_n_steps < 1 or dim not in (0, 1):
            raise UserError(
                f"every_n_steps={every_n_steps} and dim={dim} of the queue monitor must be 1 or "
                "more, and 0 or 1"
            )
        if callable(queues):
            queues = {"keys": queues}
        elif queues is not None and not isinstance(queues, Mapping):
            queues = {one: one for one in ([queues] if isinstance(queues, str) else queues)}
        self.queues: Mapping[str, Queue] | None = queues
        self.dim, self.every_n_steps = dim, every_n_steps
        self._first: dict[str, Tensor] = {}
        self._changed: dict[str, Tensor] = {}  # rows, before this session
        self._key = f"{type(self).__name__}({', '.join(self.queues or ())})"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first = {
            name: queue.clone()
            for name, queue in self._queues(pl_module).items()
            if isinstance(queue, Tensor)
        }

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._first:
            queues = self._queues(pl_module)
            checkpoint[self._key] = {
                name: self._changed_rows(name, queues[name]).cpu() for name in self._first
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._changed = dict(checkpoint.get(self._key, {}))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % self.every_n_steps:
            return
        values: dict[str, Tensor] = {}
        for name, queue in self._queues(pl_module).items():
            measured = self._measure(name, queue, step=trainer.global_step)
            values |= {f"queue/{name}/{key}": value for key, value in measured.items()}
        log_equal(pl_module, values, on_step=True, on_epoch=False)

    @torch.no_grad()
    def _measure(self, name: str, queue: KeyQueue | Tensor, *, step: int) -> dict[str, Tensor]:
        if isinstance(queue, KeyQueue):
            keys = queue.rows[queue.inserted_at >= 0]
            found = {
                "fill": queue.fill,
                "age": queue.age(step),
                "stale": stale_share(queue.ids, queue.inserted_at),
            }
        else:
            changed = self._changed_rows(name, queue)
            keys, found = queue[changed], {"fill": changed.float().mean()}
        if len(keys) > 1:
            found |= {"similarity": mean_similarity(keys), "rankme": rankme(keys[-_RANKED:])}
        return found

    def _changed_rows(self, name: str, queue: Any) -> Tensor:
        changed: Tensor = (queue != self._first[name]).any(dim=1)
        before = self._changed.get(name)
        return changed if before is None else changed | before.to(changed.device)

    def _queues(self, module: LightningModule) -> dict[str, KeyQueue | Tensor]:
        if self.queues is None:
            own = {n: m for n, m in module.named_modules() if isinstance(m, KeyQueue)}
            if own:
                return {name.removesuffix(".queue"): queue for name, queue in own.items()}
        found = {}
        for name, source in (self.queues or {"queue": "queue"}).items():
            queue = source(module) if callable(source) else _part(module, source)
            if isinstance(queue, Tensor) and queue.ndim == 2:
                queue = queue.detach() if self.dim == 0 else queue.detach().T
            elif not isinstance(queue, KeyQueue):
                raise UserError(
                    f"{type(module).__name__} has no queue {name}, a buffer (K, D) or a KeyQueue; "
                    "name it, or give a function of the module (queues=)"
                )
            found[name] = queue
        return found


def _part(module: nn.Module, name: str) -> Any:
    """Return a buffer or submodule by its name."""
    found: Any = module
    for word in name.split("."):
        found = getattr(found, word, None)
    return found
