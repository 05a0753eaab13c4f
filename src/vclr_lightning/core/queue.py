"""The queue of negatives: a ring buffer of keys whose whole state is part of the checkpoint."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import Key, torch_generator

QueueInit = Literal["unit", "uniform", "batch"]


class KeyQueue(nn.Module):
    """The last ``size`` keys, each with the id of its video and the step at which it was added.

    All state is in buffers, so that it is saved, restored and moved with the module. Keys are
    written at the pointer and wrap around, so ``size`` need not be a multiple of a batch.

    Args:
        size: length ``K``.
        dim: size ``D`` of a key.
        init: rows before any key: ``"unit"`` random unit vectors (the paper), ``"uniform"`` values
            in +-1/sqrt(D / 3) (the released code), ``"batch"`` the keys of the first batch over and
            over (VINCE).
        seed: keys of the random rows; the same seed gives the same rows on every rank.

    Attributes:
        rows: keys, ``(K, D)``.
        ids: video id of each row, ``(K,)`` int64; -1 before any key.
        inserted_at: step at which each row was written, ``(K,)`` int64; -1 before any key.
        pointer: the row of the next key, ``()`` int64.

    Raises:
        UserError: ``size`` or ``dim`` is not positive, or ``init`` is unknown.

    Example:
        >>> queue = KeyQueue(3, 2)
        >>> queue.push(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([7, 8]), step=0)
        >>> queue.push(torch.tensor([[0.0, -1.0], [-1.0, 0.0]]), torch.tensor([9, 10]), step=1)
        >>> queue.ids.tolist(), int(queue.pointer), float(queue.fill)
        ([10, 8, 9], 1, 1.0)
    """

    rows: Tensor
    ids: Tensor
    inserted_at: Tensor
    pointer: Tensor

    def __init__(
        self, size: int, dim: int, *, init: QueueInit = "unit", seed: Key | tuple[Key, ...] = 0
    ) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise UserError(f"a queue of {size} keys of {dim} values is empty; give positive sizes")
        keys = seed if isinstance(seed, tuple) else (seed,)
        self.register_buffer("rows", _random_rows(size, dim, init, torch_generator(*keys, "queue")))
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("inserted_at", torch.full((size,), -1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._waiting = init == "batch"

    @property
    def waiting(self) -> bool:
        """Whether the rows are still to be filled with the keys of the first batch."""
        if self._waiting:
            self._waiting = bool((self.inserted_at < 0).all())
        return self._waiting

    def repeated(self, keys: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys ``(n, D)`` and their ids ``(n,)`` over and over, as many as the queue has."""
        where = torch.arange(self.size, device=keys.device) % len(keys)
        return keys[where], ids[where]

    @property
    def size(self) -> int:
        """Length ``K``."""
        return len(self.rows)

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Tensor, step: int) -> None:
        """Overwrite the oldest rows with keys, in order; of more than ``K`` the last are kept.

        Shape:
            ``keys``: ``(n, D)``; ``ids``: ``(n,)`` int64.
        """
        if self.waiting:
            rows, its_ids = self.repeated(keys, ids)
            self.rows.copy_(rows)
            self.ids.copy_(its_ids)
            self.inserted_at.fill_(step)
            self._waiting = False
        kept = min(len(keys), self.size)
        first = self.pointer + (len(keys) - kept)
        where = (first + torch.arange(kept, device=self.rows.device)) % self.size
        self.rows[where] = keys[len(keys) - kept :].to(self.rows)
        self.ids[where] = ids[len(ids) - kept :].to(self.ids)
        self.inserted_at.index_fill_(0, where, step)  # an assignment copies the number, and waits
        self.pointer.copy_((self.pointer + len(keys)) % self.size)

    @property
    def fill(self) -> Tensor:
        """Share of the rows that hold keys, 0 to 1."""
        return (self.inserted_at >= 0).float().mean()

    def age(self, step: int) -> Tensor:
        """Mean age of the keys in optimizer steps; 0 while there are none."""
        filled = self.inserted_at >= 0
        ages = (step - self.inserted_at) * filled
        return ages.sum().float() / filled.sum().clamp_min(1)

    def newest(self, count: int) -> Tensor:
        """Return up to ``count`` of the rows written last, ``(n, D)``, oldest first."""
        count = min(count, self.size)
        back = torch.arange(-count, 0, device=self.rows.device)
        return self.rows[(self.pointer + back) % self.size]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape != self.rows.shape:
            raise UserError(
                f"{prefix}rows of the checkpoint holds {saved.shape[0]} keys of {saved.shape[1]} "
                f"values, but this run's queue {self.size} of {self.rows.shape[1]}; set "
                f"queue_size={saved.shape[0]} and embedding_dim={saved.shape[1]} to continue it, "
                "or start a new run"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self.rows.shape[1]}"


def _random_rows(size: int, dim: int, init: str, generator: torch.Generator) -> Tensor:
    if init in ("unit", "batch"):
        return normalize(torch.randn(size, dim, generator=generator), dim=1)
    if init == "uniform":
        bound = 1 / math.sqrt(dim / 3)
        return torch.empty(size, dim).uniform_(-bound, bound, generator=generator)
    raise UserError(f"queue_init={init!r} must be 'unit', 'uniform' or 'batch'")
