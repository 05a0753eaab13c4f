"""What a heat map can be the explanation of: scores that a checkpoint really gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.layers import layer_gradients
from vclr_lightning.functional.embedding import average
from vclr_lightning.functional.grad_cam import grad_cam
from vclr_lightning.functional.order import TupleNorm, join_tuples, normalize_tuple
from vclr_lightning.functional.precision import full
from vclr_lightning.models.tsm import TemporalShift
from vclr_lightning.modules.encoding import pixels_of, through
from vclr_lightning.modules.finetuning import FinetuneModule

SHUFFLED = ("neither", "anchor", "positive", "both")
"""Which tuple of the order prediction is shuffled; by the label of each case."""


class Target(nn.Module):
    """Scores of some frames of a video, by a network whose layers can be looked into.

    Attributes:
        network: the backbone.
        tuples: how many tuples of frames the scores are of, 1 or 2.
        segments: S, frames (or clips) of a tuple; ``None``: any number.
        outcomes: what each score is for; empty where classes have no names.
    """

    network: nn.Module
    tuples: int
    segments: int | None
    outcomes: Sequence[str]

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        """Return the scores of all outcomes, through which gradients flow.

        Shape:
            ``clips``: ``(tuples, S, C, T, H, W)`` uint8; ``order``: ``(tuples, S)``, in which the
            frames of each tuple are taken; result ``(outcomes,)``
        """
        raise NotImplementedError

    def shares(self, scores: Tensor) -> Tensor:
        """Return scores as a reader knows them: probabilities, or the cosine."""
        return scores.softmax(dim=0)


class ClassScores(Target):
    """The logits of a finetuned classifier.

    Args:
        module: of a finetuning run, in evaluation mode.
    """

    tuples = 1
    segments = None

    def __init__(self, module: FinetuneModule) -> None:
        super().__init__()
        module.frozen = False  # else its features would come without gradients
        self.module = module
        self.network = module.query_encoder
        self.outcomes = module.class_names

    def scores(self, clips: Tensor, order: Tensor) -> Tensor:
        logits: Tensor = self.module(clips)
        return full(logits[0])


class TupleSimilarity(Target):
    """The cosine similarity of two tuples' averaged features, which needs no labels.

    The features' norms are taken as given: what is differentiated is the inner product of unit
    vectors. Then the heat of the last layer, before it is cut off at 0, is each position's
    contribution to the similarity. The gradient of the cosine itself is orthogonal to the features,
    and its map averages to 0 whatever the tuples show.

    Args:
        network: the backbone, in evaluation mode.
        shift: of a network that was trained with temporal shifts.
    """

    tuples = 2
    segments = None
    outcomes = ("similarity",)

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

    def shares(self, scores: Tensor) -> Tensor:
        return scores


class OrderPrediction(Target):
    """What the order head of a pretraining run says of two tuples (Section 3.3 of the paper).

    Both tuples go through the trained encoder and head; in training the second one goes through
    their momentum copies.

    Args:
        network: the backbone, in evaluation mode.
        head: embeds a frame's features, ``(..., F)`` to ``(..., D)``.
        classifier: of both tuples' embeddings, ``2 S D`` values.
        normalize: see :class:`~vclr_lightning.objectives.TemporalOrder`.
    """

    tuples = 2
    outcomes = SHUFFLED

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


def explain(
    target: Target, layer: nn.Module, name: str, *, clips: Tensor, order: Tensor, outcome: int
) -> Tensor:
    """Return the heat maps of an outcome's score, as large as the layer's output.

    Args:
        target: gives the scores.
        layer: of the target's network.
        name: of the layer.
        clips: of one video.
        order: in which the frames of each tuple are taken.
        outcome: number of the score.

    Shape:
        ``clips``: ``(tuples, S, C, T, H, W)`` uint8; ``order``: ``(tuples, S)``;
        result ``(tuples, S, h, w)``, or ``(tuples, S, t, h, w)`` of a network of clips
    """
    with torch.enable_grad(), layer_gradients(layer, name) as captured:
        heat = grad_cam(*captured(target.scores(clips, order)[outcome]))
    count = clips.shape[0] * clips.shape[1]
    if len(heat) != count:
        raise UserError(
            f"layer={name} returns maps of {len(heat)} pictures for {count}; take another layer"
        )
    return heat.view(*clips.shape[:2], *heat.shape[1:])
