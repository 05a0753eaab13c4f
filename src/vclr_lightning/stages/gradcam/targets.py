"""Scores whose evidence Grad-CAM locates, as far as a checkpoint really gives them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.embedding import average
from vclr_lightning.functional.order import TupleNorm, join_tuples, normalize_tuple
from vclr_lightning.functional.precision import full
from vclr_lightning.models.checkpoints import QUERY_PREFIX, Checkpoint, read_checkpoint
from vclr_lightning.models.run_record import config_value, run_config
from vclr_lightning.models.tsm import TemporalShift
from vclr_lightning.modules.encoding import through
from vclr_lightning.modules.finetuning import FinetuneModule
from vclr_lightning.modules.input_pixels import backbone_number, pixels_of
from vclr_lightning.objectives.heads import projection_head
from vclr_lightning.stages.shared.finetuned import load_finetuned
from vclr_lightning.stages.shared.network import pretrained_network

logger = logging.getLogger(__name__)

TARGETS = ("class", "similarity", "order")
SHUFFLED = ("neither", "anchor", "positive", "both")
"""Which tuple of the order prediction is shuffled; by the label of each case."""


class Target(nn.Module):
    """Scores of some frames of a video, by a network with convolutional layers.

    Attributes:
        kind: one of :data:`TARGETS`.
        network: the backbone.
        tuples: how many tuples of frames the scores are of, 1 or 2.
        segments: S, frames (or clips) of a tuple; ``None``: any number.
        outcomes: what each score is for; empty where classes have no names.
        num_outcomes: number of scores.
    """

    kind: str
    network: nn.Module
    tuples: int
    segments: int | None
    outcomes: Sequence[str]
    num_outcomes: int

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        """Return the scores of all outcomes, through which gradients flow.

        Shape:
            ``clips``: ``(tuples, S, C, T, H, W)`` uint8; ``order``: ``(tuples, S)``, in which the
            frames of each tuple are taken; result ``(outcomes,)``
        """
        raise NotImplementedError

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return scores as a reader knows them: probabilities, or the cosine."""
        return scores.softmax(dim=0)


class ClassScores(Target):
    """The logits of a finetuned classifier.

    Args:
        module: of a finetuning run, in evaluation mode.
    """

    kind, tuples, segments = "class", 1, None

    def __init__(self, module: FinetuneModule) -> None:
        super().__init__()
        module.frozen = False  # else its features would come without gradients
        self.module = module
        self.network = module.query_encoder
        self.outcomes = module.class_names
        self.num_outcomes = module.classifier.out_features

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        logits: Tensor = self.module(clips)
        return full(logits[0])


class TupleSimilarity(Target):
    """The cosine similarity of two tuples' averaged features, which needs no labels.

    The features' norms are held constant: what is differentiated is the inner product of unit
    vectors. Then the heat of the last layer, before it is cut off at 0, is each position's
    contribution to the similarity. The gradient of the cosine itself is orthogonal to the features,
    and its map averages to 0 whatever the tuples show.

    Args:
        network: the backbone, in evaluation mode.
        shift: of a network that was trained with temporal shifts.
    """

    kind, tuples, segments = "similarity", 2, None
    outcomes, num_outcomes = ("similarity",), 1

    def __init__(self, network: nn.Module, shift: TemporalShift | None = None) -> None:
        super().__init__()
        self.network, self.shift = network, shift
        self.pixels = pixels_of(network)

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        if self.shift is not None:
            self.shift.num_frames = clips.shape[1]
        features = average(full(through(self.network, clips, pixels=self.pixels)))  # (2, F)
        anchor, positive = features / features.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
        similarity: Tensor = (anchor * positive).sum()
        return similarity[None]

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores


class OrderPrediction(Target):
    """The order head of a pretraining run, on two tuples (Section 3.3 of the paper).

    Both tuples go through the trained encoder and head; in training the second one goes through
    their momentum copies.

    Args:
        network: the backbone, in evaluation mode.
        head: embeds a frame's features, ``(..., F)`` to ``(..., D)``.
        classifier: of both tuples' embeddings, ``2 S D`` values.
        normalize: see :class:`~vclr_lightning.objectives.TemporalOrder`.
    """

    kind, tuples, outcomes, num_outcomes = "order", 2, SHUFFLED, len(SHUFFLED)

    def __init__(
        self, network: nn.Module, *, head: nn.Module, classifier: nn.Linear, normalize: TupleNorm
    ) -> None:
        super().__init__()
        self.network, self.head, self.classifier = network, head, classifier
        self.normalize: TupleNorm = normalize
        last = list(head.parameters())[-1]
        self.segments = classifier.in_features // (2 * len(last))
        self.pixels = pixels_of(network)

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        features = through(self.network, clips, pixels=self.pixels)  # (2, S, F)
        anchor, positive = normalize_tuple(self.head(features), self.normalize)[:, None]
        joined = join_tuples(anchor, positive, order[:1], order[1:])
        logits: Tensor = self.classifier(joined)[0]
        return full(logits)


def targets_of(checkpoint: Checkpoint | None) -> list[str]:
    """Return the names of the targets of a checkpoint, or of an untrained network (``None``).

    Example:
        >>> targets_of(None)
        ['similarity']
    """
    found = ["similarity"]
    if checkpoint is None:
        return found
    classifier = {"classifier.weight", "classifier.bias"}
    if checkpoint.prefix == QUERY_PREFIX and classifier <= checkpoint.tensors.keys():
        found.insert(0, "class")
    if _order_name(checkpoint) is not None:
        found.append("order")
    return found


def build_target(
    target: str | None, weights: str | Path, backbone: nn.Module | None = None, *, of: str | Path
) -> Target:
    """Return the target of a checkpoint.

    Args:
        target: ``None``: ``class`` where there is a classifier, else ``similarity``.
        weights: the file; ``"none"`` for random weights in the network of ``of``.
        backbone: the network to fill, which is copied; ``None`` for the one that the file is of.
        of: the run's first checkpoint.

    Raises:
        UserError: there is no such target, or the checkpoint lacks it.
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
