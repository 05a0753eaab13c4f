"""The interface of an objective: the extension point for new methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor, nn

from vclr_lightning.core.types import Batch, ObjectiveOutput, Request


class Objective(nn.Module):
    """A loss that declares what it reads, and owns its heads and its queue.

    The training module plans the union of all requests, encodes each clip at most once per encoder,
    calls the objective with the features it requested, gathers ``pending`` over the ranks, and
    calls :meth:`commit` only after an optimizer step that was not skipped.
    """

    @property
    def enabled(self) -> bool:
        """False if the objective has nothing to learn, such as temporal order of one segment."""
        return True

    def requests(self) -> Mapping[str, Request]:
        """Named requests; the features arrive under the same names."""
        raise NotImplementedError

    def targets(self) -> Iterable[str]:
        """Names of the targets that are read from ``batch["targets"]``."""
        return ()

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Return the loss of one micro-batch.

        Shape: ``features[name]``: ``(B, r, F)``, or ``(B, r, F, ...)`` for maps.
        """
        raise NotImplementedError

    def commit(self, pending: Mapping[str, Tensor], step: int) -> None:
        """Process the keys of one global batch, in global order, after optimizer step ``step``.

        The global batch covers all ranks and accumulated micro-batches of the step.

        Shape: ``pending[name]``: ``(B_global, ...)``.
        """

    def prepare(self, video_ids: Tensor) -> None:
        """Get the ids of all training videos, ``(n,)`` int64, before a checkpoint is restored.

        Called where the run has a data module that knows them.
        """

    def diagnostics(self, step: int) -> Mapping[str, Tensor]:
        """Return scalars that describe the state; called only in steps that are logged."""
        return {}

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return (query module, key module) pairs of the momentum update, heads included."""
        return ()


class ObjectiveFactory(Protocol):
    """Builds an objective for a backbone of ``num_features`` features."""

    def __call__(self, *, num_features: int) -> Objective: ...
