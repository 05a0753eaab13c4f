"""A weighted mixture of objectives, and their keys until an optimizer step is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import CodeFault, UserError, check_named
from vclr_lightning.core.lightning import Trainer
from vclr_lightning.core.types import Batch, ObjectiveOutput
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
    check_named("objective.objectives", factories, what="objective", fits=callable)
    advice = "correct it, or leave it out"
    check_named("objective.weights", weights or {}, what="number", fits=_is_number, advice=advice)
    weights = dict(weights or {})
    if unknown := sorted(set(weights) - set(factories)):
        raise UserError(
            f"objective.weights name {', '.join(unknown)}, but the objectives are "
            f"{', '.join(factories)}"
        )
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UserError(
                f"objective.weights.{name}={weight} must be a finite number, at least 0"
            )
    for name in factories:
        if "." in name or not name or hasattr(nn.ModuleDict(), name):
            raise UserError(f"an objective can't be named {name!r}; use another word")
    built = {
        name: _built(name, factory, num_features)
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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _built(name: str, factory: ObjectiveFactory, num_features: int) -> Objective:
    key = "objective.objectives"
    try:
        objective: Any = factory(num_features=num_features)
        check_named(key, {name: objective}, what="objective", fits=_is_objective)
        objective.requests()
    except UserError as error:
        where = "" if key in str(error) else f" ({key}.{name})"
        raise UserError(f"{error}{where}") from error
    return cast(Objective, objective)


def _is_objective(part: object) -> bool:
    return isinstance(part, Objective)


def evaluate_objectives(
    objectives: Iterable[tuple[str, Objective]],
    features: Mapping[str, Mapping[str, Tensor]],
    batch: Batch,
) -> dict[str, ObjectiveOutput]:
    """Return what the objectives make of a micro-batch, by name.

    Raises:
        CodeFault: one fails, or returns something else than it should.
    """
    outputs, objectives = {}, list(objectives)
    for name, objective in objectives:
        with _blaming(name, objective):
            outputs[name] = objective(features.get(name, {}), batch)
            _check_output(outputs[name])
    if torch.is_grad_enabled() and not any(out.loss.requires_grad for out in outputs.values()):
        what = "its loss depends on no parameter that is trained, such as after detach()"
        for name, objective in objectives:
            with _blaming(name, objective):
                raise ValueError(what)
    return outputs


@contextmanager
def _blaming(name: str, objective: Objective) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # With its cause, which may be a full memory or a lost rank.
        raise CodeFault.of(objective, error).on(f"the objective {name}") from error


def _check_output(output: Any) -> None:
    if not isinstance(output, ObjectiveOutput):
        raise TypeError(f"it returns {type(output).__name__}, not an ObjectiveOutput")
    for name, value in {"loss": output.loss, **output.metrics}.items():
        if not isinstance(value, Tensor) or value.ndim:
            what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"its {name} is {what}, not a tensor of one number")
    for name, keys in output.pending.items():
        if not isinstance(keys, Tensor) or not keys.ndim:
            raise TypeError(f"its pending {name} is not a tensor with a row for each video")


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
        self._micro_batches.append(
            {name: {k: v.detach() for k, v in out.pending.items()} for name, out in outputs.items()}
        )

    def commit(self, objectives: Iterable[tuple[str, Objective]], step: int) -> None:
        """Commit the keys of the global batch to each objective, by micro-batch, then by rank."""
        micro_batches, self._micro_batches = self._micro_batches, []
        for name, objective in objectives:
            parts = [pending[name] for pending in micro_batches]
            keys = parts[0] if parts else ()
            with _blaming(name, objective):
                gathered = {
                    key: torch.cat([distributed.gather(part[key]) for part in parts])
                    for key in keys
                }
                if gathered:
                    objective.commit(gathered, step)

    def drop(self) -> None:
        """Discard them: the step was skipped."""
        self._micro_batches.clear()
