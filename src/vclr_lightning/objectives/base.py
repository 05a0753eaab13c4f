"""What an objective is: the extension point for new methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

from vclr_lightning.core.types import Batch, ObjectiveOutput, Request


class Objective(nn.Module):
    """A loss that declares what it reads, and owns its heads and its queue.

    The module that trains it plans the union of all requests, encodes each clip at most once per
    encoder, calls the objective with its part, gathers ``pending`` over the ranks, and calls
    :meth:`commit` only after an optimizer step that really happened.
    """

    @property
    def enabled(self) -> bool:
        """False where the objective has nothing to learn (temporal order with one segment)."""
        return True

    def requests(self) -> Mapping[str, Request]:
        """Named requests; the features arrive under the same names."""
        raise NotImplementedError

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Return the loss of one micro-batch.

        Shape:
            ``features[name]``: ``(B, r, F)``, or ``(B, r, F, ...)`` for maps.
        """
        raise NotImplementedError

    def commit(self, pending: Mapping[str, Tensor], step: int) -> None:
        """Take the keys of one global batch, in global order, after optimizer step ``step``.

        The global batch is that of one optimizer step: all ranks, all accumulated micro-batches.

        Shape:
            ``pending[name]``: ``(B_global, ...)``.
        """

    def diagnostics(self, step: int) -> Mapping[str, Tensor]:
        """Return scalars that describe the state; asked for only where they are logged."""
        return {}

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """(query module, key module) pairs that follow each other by momentum, heads included."""
        return ()


class ObjectiveFactory(Protocol):
    """Builds an objective for a backbone of ``num_features`` features."""

    def __call__(self, *, num_features: int) -> Objective: ...
