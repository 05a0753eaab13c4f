"""What waits for the optimizer step that its micro-batches lead to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vclr_lightning.core import distributed
from vclr_lightning.core.types import ObjectiveOutput
from vclr_lightning.objectives.base import Objective


class PendingKeys:
    """Keys of this rank's micro-batches, until a step really happened or was skipped."""

    def __init__(self) -> None:
        self._micro_batches: list[dict[str, Mapping[str, Tensor]]] = []

    def add(self, outputs: Mapping[str, ObjectiveOutput]) -> None:
        """Keep what the objectives of one micro-batch returned."""
        self._micro_batches.append({name: out.pending for name, out in outputs.items()})

    def commit(self, objectives: Iterable[tuple[str, Objective]], step: int) -> None:
        """Hand every objective the keys of the global batch: by micro-batch, then by rank."""
        micro_batches, self._micro_batches = self._micro_batches, []
        for name, objective in objectives:
            parts = [pending[name] for pending in micro_batches]
            keys = parts[0] if parts else ()
            gathered = {
                key: torch.cat([distributed.gather(part[key]) for part in parts]) for key in keys
            }
            if gathered:
                objective.commit(gathered, step)

    def drop(self) -> None:
        """Forget them: the step did not happen."""
        self._micro_batches.clear()
