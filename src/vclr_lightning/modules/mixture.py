"""A mixture of objectives, built with their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vclr_lightning.core.errors import UserError
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
    """Build the objectives of positive weight that have something to learn.

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
            raise UserError(f"weight {weight} of {name} must be a number from 0 on")
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
