"""A memory bank: one row for each video, which follows the video's embedding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import Key, torch_generator


class MemoryBank(nn.Module):
    """A row for each video, moved towards the video's embedding each time that it is seen.

    ``row <- unit(m row + (1 - m) embedding)``. The rows start as random numbers within
    ``+-1 / sqrt(D / 3)``, not as unit vectors (Tian et al., "Contrastive multiview coding", ECCV
    2020, after Wu et al., "Unsupervised feature learning via non-parametric instance
    discrimination", CVPR 2018).

    Args:
        size: number of rows.
        dim: size ``D`` of a row.
        momentum: m.
        seed: keys of the random rows; the same seed gives the same rows on every rank.

    Attributes:
        rows: ``(size, D)``.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> bank = MemoryBank(3, 2, momentum=0.5)
        >>> bank.rows[:] = torch.tensor([1.0, 0.0])
        >>> bank.update(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
        >>> bank.rows[1]
        tensor([0.7071, 0.7071])
    """

    rows: Tensor

    def __init__(
        self, size: int, dim: int, *, momentum: float = 0.5, seed: Key | tuple[Key, ...] = 0
    ) -> None:
        super().__init__()
        if size < 1 or dim < 1 or not 0 <= momentum < 1:
            raise UserError(
                f"a memory bank of {size} rows of {dim} values with momentum={momentum} is not "
                "possible; give positive sizes, and a momentum of at least 0 and below 1"
            )
        self.dim, self.momentum = dim, momentum
        self._seed = seed if isinstance(seed, tuple) else (seed,)
        self.register_buffer("rows", torch.empty(0, dim))
        self.resize(size)

    def resize(self, size: int) -> None:
        """Start again with ``size`` random rows."""
        bound = 1 / math.sqrt(self.dim / 3)
        generator = torch_generator(*self._seed, "bank")
        rows = torch.empty(size, self.dim).uniform_(-bound, bound, generator=generator)
        self.rows = rows.to(self.rows)

    @torch.no_grad()
    def update(self, where: Tensor, embeddings: Tensor) -> None:
        """Move rows; of a video that is there several times, the last embedding counts.

        Shape:
            ``where``: ``(n,)`` int64; ``embeddings``: ``(n, D)``.
        """
        # A video's rows are written several times, each time the same: choosing one by a mask
        # would wait for the device.
        last = len(where) - 1 - (where[:, None] == where).flip(1).int().argmax(1)
        embeddings = embeddings[last].to(self.rows)
        moved = torch.lerp(embeddings, self.rows[where], self.momentum)
        self.rows[where] = normalize(moved, dim=1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape != self.rows.shape:
            raise UserError(
                f"{prefix}rows of the checkpoint holds {saved.shape[0]} videos of {saved.shape[1]} "
                f"values, but this run has {self.rows.shape[0]} of {self.rows.shape[1]}; continue "
                "it with the same training videos and embedding_dim, or start a new run"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"size={len(self.rows)}, dim={self.dim}, momentum={self.momentum}"
