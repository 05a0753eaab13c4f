"""What a checkpoint can explain, by what is in it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import get_args

from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.order import TupleNorm
from vclr_lightning.models.checkpoints import QUERY_PREFIX, Checkpoint, read_checkpoint
from vclr_lightning.modules.encoding import backbone_number
from vclr_lightning.objectives.heads import projection_head
from vclr_lightning.stages.gradcam.explained import (
    ClassScores,
    OrderPrediction,
    Target,
    TupleSimilarity,
)
from vclr_lightning.stages.shared.finetuned import load_finetuned
from vclr_lightning.stages.shared.network import pretrained_network
from vclr_lightning.stages.shared.run_config import config_value, run_config

logger = logging.getLogger(__name__)

TARGETS = ("class", "similarity", "order")


def targets_of(checkpoint: Checkpoint | None) -> tuple[str, ...]:
    """Return the names of the targets that a checkpoint, or ``None`` (no training), can give.

    Example:
        >>> targets_of(None)
        ('similarity',)
    """
    found = ["similarity"]
    if checkpoint is None:
        return tuple(found)
    classifier = {"classifier.weight", "classifier.bias"}
    if checkpoint.prefix == QUERY_PREFIX and classifier <= checkpoint.tensors.keys():
        found.insert(0, "class")
    if _order_name(checkpoint) is not None:
        found.append("order")
    return tuple(found)


def build_target(
    target: str | None, weights: str | Path, backbone: nn.Module | None = None, *, of: str | Path
) -> Target:
    """Return what is to be explained, from a checkpoint.

    Args:
        target: one of :data:`TARGETS`; ``None``: ``class`` where there is a classifier, else
            ``similarity``.
        weights: the file; ``"none"`` for random weights in the network of ``of``.
        backbone: the network to fill, which is copied; ``None`` for the one that the file is of.
        of: the run's first checkpoint.

    Raises:
        UserError: there is no such target, or the checkpoint cannot give it.
    """
    if target not in (None, *TARGETS):
        raise UserError(f"there is no target={target}; there are {', '.join(TARGETS)}")
    untrained = str(weights).lower() == "none"
    checkpoint = None if untrained else read_checkpoint(weights)
    there = targets_of(checkpoint)
    target = there[0] if target is None else target
    if target not in there:
        name = "an untrained network" if untrained else str(weights)
        lacks = {"class": "finetuned classifier", "order": "order head"}[target]
        give = {
            "class": "last.ckpt or best.ckpt of a run of stage=finetune",
            "order": "a checkpoint of pretraining with the order loss",
        }[target]
        raise UserError(
            f"{name} has no {lacks}, which target={target} needs; it can give "
            f"{' and '.join(there)}: take one of these, or {give}"
        )
    network = copy.deepcopy(backbone)
    if checkpoint is not None and "class" in there:
        module = load_finetuned(weights, network)
        logger.info("weights: %s, a %s classifier", weights, module.head.upper())
        if target == "class":
            return ClassScores(module)
        return TupleSimilarity(module.query_encoder, module.shift)
    if untrained and str(of).lower() != "none":
        return TupleSimilarity(pretrained_network(of, network, untrained=True))
    network = pretrained_network(weights, network)
    if target == "similarity" or checkpoint is None:
        return TupleSimilarity(network)
    return _order(network, checkpoint)


def _order_name(checkpoint: Checkpoint) -> str | None:
    """Return the name of the objective that has an order head."""
    both = [name for name in checkpoint.classifiers if name in checkpoint.heads]
    names = [n for n in both if f"{checkpoint.heads[n]}2.bias" in checkpoint.tensors]
    return names[0] if names else None


def _order(network: nn.Module, checkpoint: Checkpoint) -> OrderPrediction:
    name = _order_name(checkpoint)
    assert name is not None
    head, linear = (
        checkpoint.under(part[name]) for part in (checkpoint.heads, checkpoint.classifiers)
    )
    released: TupleNorm = "frames" if checkpoint.form == "released" else "channels"
    saved = config_value(run_config(checkpoint.path), f"objective.objectives.{name}.normalize")
    if saved not in (None, *get_args(TupleNorm)):
        raise UserError(f"{checkpoint.path} says of its order head normalize={str(saved)[:99]}")
    try:
        embedding = projection_head(backbone_number(network, "num_features"), len(head["2.bias"]))
        embedding.load_state_dict(head)
        classifier = nn.Linear(linear["weight"].shape[1], len(linear["weight"]))
        classifier.load_state_dict(linear)
    except (KeyError, IndexError, TypeError, RuntimeError) as error:
        raise UserError(f"the order head in {checkpoint.path} is of another form") from error
    return OrderPrediction(
        network, head=embedding.eval(), classifier=classifier.eval(), normalize=saved or released
    )
