"""Classification of a label that a sampler or a transform makes: the loss of pretext tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.permutations import joined_pairs
from vclr_lightning.functional.precision import full, without_autocast
from vclr_lightning.objectives.base import Objective

Join = Literal["none", "concat", "pairs"]


class Classify(Objective):
    """Predict ``target`` from the features of ``of``, by cross-entropy.

    Each clip by itself, as in pace prediction or SpeedNet: a linear layer. Or the clips of a video
    jointly, as in order prediction: their features in a row (``join="concat"``), or every two of
    them in a row (``join="pairs"``: Lee et al., "Unsupervised representation learning by sorting
    sequences", ICCV 2017; Xu et al., "Self-supervised spatiotemporal learning via video clip order
    prediction", CVPR 2019), each through the same hidden layer and ReLU, then a linear layer.

    Args:
        num_features: features of the backbone.
        of: the clips, as :meth:`Request.of` describes them.
        target: name of the label, whole numbers from 0; of a video ``(B,)`` or of a clip
            ``(B, n)``. Where clips are joined and have a label each, the first counts.
        classes: number of classes.
        clips: number of clips that are joined; not used otherwise.
        join: ``"none"``, ``"concat"`` or ``"pairs"``.
        hidden: size of the layer before the last one; 0 for none. With ``"pairs"``, of each pair.
        dropout: probability, of the last layer's input.

    Shape: - features: ``(B, n, F)``

    Raises:
        UserError: a value is out of range; from forward, if the target has a class beyond
            ``classes`` or the data gives another number of clips.

    Example:
        >>> Classify(num_features=8, of="clip", target="pace", classes=4).classifier
        Linear(in_features=8, out_features=4, bias=True)
        >>> order = Classify(
        ...     num_features=8, target="order", classes=6, clips=3, join="pairs", hidden=5
        ... )
        >>> order.classifier
        Linear(in_features=15, out_features=6, bias=True)
    """

    def __init__(
        self,
        *,
        num_features: int,
        of: str = "clip",
        target: str,
        classes: int,
        clips: int = 1,
        join: Join = "none",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if join not in get_args(Join):
            raise UserError(f"join={join!r} must be one of {', '.join(get_args(Join))}")
        if classes < 2 or hidden < 0 or not 0 <= dropout < 1:
            raise UserError(
                f"classes={classes} must be at least 2, hidden={hidden} at least 0, and "
                f"dropout={dropout} within 0..1"
            )
        if clips < (2 if join == "pairs" else 1):
            raise UserError(f"clips={clips} are too few for join={join!r}")
        self.of, self.target, self.classes = of, target, classes
        self.clips, self.join, self.dropout = clips, join, dropout
        pairs = clips * (clips - 1) // 2
        width, parts = {
            "none": (num_features, 1),
            "concat": (clips * num_features, 1),
            "pairs": (2 * num_features, pairs),
        }[join]
        self.hidden: nn.Module = nn.Identity()
        if hidden:
            self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(parts * (hidden or width), classes)

    def requests(self) -> Mapping[str, Request]:
        return {"clips": Request.of(self.of)}

    def targets(self) -> Iterable[str]:
        return (self.target,)

    def logits(self, features: Tensor) -> Tensor:
        """Return the scores of ``(B, n, F)``: of each clip ``(B n, classes)``, or ``(B, ...)``."""
        if self.join == "none":
            features = self.hidden(features.flatten(0, 1))
        elif features.shape[1] != self.clips:
            raise UserError(
                f"the data gives {features.shape[1]} clips of {self.of}, but clips={self.clips} of "
                "Classify; set both to the same number"
            )
        elif self.join == "concat":
            features = self.hidden(features.flatten(1))
        else:
            features = self.hidden(joined_pairs(features)).flatten(1)
        logits: Tensor = self.classifier(
            torch.dropout(features, self.dropout, self.training and self.dropout > 0)
        )
        return logits

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        target = batch["targets"][self.target].long()
        if self.join != "none":
            target = target if target.ndim == 1 else target[:, 0]
        else:
            each = target if target.ndim > 1 else target[:, None]
            target = each.expand(features["clips"].shape[:2]).flatten()
        if not target.is_cuda and (beyond := target[(target < 0) | (target >= self.classes)]).any():
            raise UserError(
                f"target {self.target!r} has class {int(beyond[0])}, but classes={self.classes} of "
                "Classify; set classes to their number"
            )
        logits = self.logits(features["clips"])
        with without_autocast(logits):
            loss = cross_entropy(full(logits), target)
        return ObjectiveOutput(
            loss=loss,
            metrics={
                "accuracy": (logits.detach().argmax(1) == target).float().mean(),
                "chance": logits.new_full((), 1 / self.classes, dtype=torch.float32),
            },
        )
