"""Temporal-order loss: predict whether the frames of two tuples are shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.order import (
    ORDER_CLASSES,
    TupleNorm,
    join_tuples,
    normalize_tuple,
    order_loss,
)
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import (
    check_num_segments,
    check_tuple,
    projection_heads,
)


class TemporalOrder(Objective):
    """Classify which of two tuples has its frames shuffled (Section 3.3 of the paper).

    A shuffle permutes the clips' features, so it needs no extra encoding. With one segment the
    objective is disabled and has no parameters.

    Args:
        num_features: features of the backbone.
        num_segments: clips in a tuple.
        query: the view that is the first tuple; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        key: the view that is the second, by the encoder ``key``.
        query_order, key_order: targets ``(B, S)`` with the order of each tuple's clips.
        label: the target ``(B,)``: 0 neither is shuffled, 1 the first, 2 the second, 3 both.
        embedding_dim: size of each clip's embedding.
        normalize: L2-normalise each clip's embedding over its ``"channels"`` (the paper), or each
            channel over the ``"frames"`` of the tuple (the released code).

    Raises:
        UserError: a value is out of range, or the data gives tuples of another length.

    Example:
        >>> TemporalOrder(num_features=8, num_segments=3, embedding_dim=4).classifier
        Linear(in_features=24, out_features=4, bias=True)
        >>> TemporalOrder(num_features=8, num_segments=1).enabled
        False
    """

    def __init__(
        self,
        *,
        num_features: int,
        num_segments: int = 3,
        query: str = "anchor",
        key: str = "positive",
        query_order: str = "anchor_order",
        key_order: str = "positive_order",
        label: str = "shuffled",
        embedding_dim: int = 128,
        normalize: TupleNorm = "channels",
    ) -> None:
        super().__init__()
        if normalize not in ("channels", "frames"):
            raise UserError(f"normalize={normalize!r} must be 'channels' or 'frames'")
        self.normalize: TupleNorm = normalize
        self.query, self.key = query, key
        self.query_order, self.key_order, self.label = query_order, key_order, label
        self.num_segments = check_num_segments(num_segments)
        if self.enabled:
            self.query_head, self.key_head = projection_heads(num_features, embedding_dim)
            self.classifier = nn.Linear(2 * num_segments * embedding_dim, ORDER_CLASSES)

    @property
    def enabled(self) -> bool:
        return self.num_segments > 1

    def requests(self) -> Mapping[str, Request]:
        return {"query": Request.of(self.query), "key": Request.of(self.key, encoder="key")}

    def targets(self) -> Iterable[str]:
        return (self.query_order, self.key_order, self.label)

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        check_tuple(features["query"], self.num_segments, "the order loss")
        first, second, label = (batch["targets"][name] for name in self.targets())
        query = normalize_tuple(self.query_head(features["query"]), self.normalize)  # (B, S, D)
        with torch.no_grad():
            key = normalize_tuple(self.key_head(features["key"]), self.normalize)  # (B, S, D)
        logits = self.classifier(join_tuples(query, key, first, second))
        return ObjectiveOutput(
            loss=order_loss(logits, label),
            metrics={
                "accuracy": (logits.detach().argmax(1) == label).float().mean(),
                "chance": logits.new_full((), 1 / ORDER_CLASSES, dtype=torch.float32),
            },
        )

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return ((self.query_head, self.key_head),) if self.enabled else ()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}classifier.weight")
        if self.enabled and saved is not None and saved.shape != self.classifier.weight.shape:
            raise UserError(
                f"{prefix}classifier of the checkpoint reads {saved.shape[1]} values, but this "
                f"run's {self.classifier.in_features}; continue with the num_segments and "
                "embedding_dim it was trained with, or start a new run"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
