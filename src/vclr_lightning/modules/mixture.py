"""A weighted mixture of objectives, and their keys until an optimizer step is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import ObjectiveOutput
from vclr_lightning.objectives.base import Objective, ObjectiveFactory


@dataclass(frozen=True)
class Mixture:
    """Objectives and their weights, by the same names."""

    objectives: dict[str, Objective]
    weights: dict[str, float]


def build_objectives(
    factories: Mapping[str, ObjectiveFactory],
    weights: Mapping[str, float] | None,
    *,
    num_features: int,
) -> Mixture:
    """Build the enabled objectives of positive weight.

    Args:
        factories: by name.
        weights: by name; 1 where left out.
        num_features: of the backbone.

    Raises:
        UserError: a weight is negative or of an unknown name, a name has a dot, or nothing is left.

    Example:
        >>> from vclr_lightning.objectives import IntraFrame, TemporalOrder
        >>> factories = {"intra": IntraFrame, "order": TemporalOrder}
        >>> list(build_objectives(factories, {"order": 0}, num_features=8).objectives)
        ['intra']
    """
    weights = dict(weights or {})
    if unknown := sorted(set(weights) - set(factories)):
        raise UserError(
            f"weights name {', '.join(unknown)}, but the objectives are {', '.join(factories)}"
        )
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UserError(f"weight {weight} of {name} must be a finite number, at least 0")
    if dotted := [name for name in factories if "." in name or not name]:
        raise UserError(f"an objective can't be named {dotted[0]!r}; use letters and underscores")
    built = {
        name: factory(num_features=num_features)
        for name, factory in factories.items()
        if weights.get(name, 1) > 0
    }
    objectives = {name: objective for name, objective in built.items() if objective.enabled}
    if not objectives:
        raise UserError(
            "no objective is left to train: every weight is 0, or num_segments=1 leaves nothing "
            "to learn; give one a positive weight"
        )
    return Mixture(objectives, {name: float(weights.get(name, 1)) for name in objectives})


def prepare_objectives(objectives: Iterable[tuple[str, Objective]], trainer: Trainer) -> None:
    """Hand the ids of the training videos to the objectives that need them."""
    videos = getattr(getattr(trainer, "datamodule", None), "train", None)
    asking = [one for _, one in objectives if type(one).prepare is not Objective.prepare]
    if asking and videos is not None:
        ids = torch.tensor([videos.video_id(i) for i in range(len(videos))])
        for objective in asking:
            objective.prepare(ids)


class PendingKeys:
    """Keys of this rank's micro-batches, until the optimizer step is taken or skipped."""

    def __init__(self) -> None:
        self._micro_batches: list[dict[str, Mapping[str, Tensor]]] = []

    def add(self, outputs: Mapping[str, ObjectiveOutput]) -> None:
        """Keep the pending keys of one micro-batch."""
        self._micro_batches.append({name: out.pending for name, out in outputs.items()})

    def commit(self, objectives: Iterable[tuple[str, Objective]], step: int) -> None:
        """Commit the keys of the global batch to each objective, by micro-batch, then by rank."""
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
        """Discard them: the step was skipped."""
        self._micro_batches.clear()
