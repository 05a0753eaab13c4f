"""SeCo's temporal order: does a frame precede or follow two others of its video?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.functional.precision import full, without_autocast
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import projection_heads


class PrecedesOrFollows(Objective):
    """Classify whether the query frame precedes or follows the key frames (SeCo).

    Yao, Zhang, Qiu, Pan, Mei, "SeCo: exploring sequence supervision for unsupervised representation
    learning" (AAAI 2021). The logits are a linear function of the unit embeddings side by side,

        ``logits = W [g(x1); g_k(x2); g_k(x3)] + b``, ``L = cross-entropy(logits, label)``,

    where ``x2`` and ``x3`` are in temporal order. Gradient reaches the encoder through ``x1``
    alone. SeCo's other two losses are :class:`InterFrame`, with the keys ``x1_again``, ``x2`` and
    ``x3``, and :class:`IntraFrame` in its form ``pairwise``.

    Args:
        num_features: features of the backbone.
        query: the view of one clip that is the query; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        keys: views whose clips it is compared with, by the encoder ``key``.
        target: name of the label in the batch, 0 (precedes) or 1 (follows).
        embedding_dim: size of each frame's embedding.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> order = PrecedesOrFollows(num_features=8, embedding_dim=4)
        >>> order.classifier
        Linear(in_features=12, out_features=2, bias=True)
        >>> list(order.targets())
        ['follows']
    """

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "x1",
        keys: Sequence[str] = ("x2", "x3"),
        target: str = "follows",
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        if isinstance(keys, str) or not keys:
            raise UserError(f"keys={keys!r} must be a list of views, such as [x2, x3]")
        self.query, self.keys, self.target = query, tuple(keys), target
        self.query_head, self.key_head = projection_heads(num_features, embedding_dim)
        self.classifier = nn.Linear((1 + len(self.keys)) * embedding_dim, 2)

    def requests(self) -> Mapping[str, Request]:
        keys = {f"key{i}": Request.of(key, encoder="key") for i, key in enumerate(self.keys)}
        return {"query": Request.of(self.query), **keys}

    def targets(self) -> Iterable[str]:
        """Names of the labels that the batch must hold."""
        return (self.target,)

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        query = unit(self.query_head(features["query"]))  # (B, 1, D)
        with torch.no_grad():
            found = [features[f"key{i}"] for i in range(len(self.keys))]
            keys = unit(self.key_head(torch.cat(found, dim=1)))  # (B, P, D)
        logits = self.classifier(torch.cat([query, keys], dim=1).flatten(1))
        label = batch["targets"][self.target]
        with without_autocast(logits):
            loss = cross_entropy(full(logits), label)
        return ObjectiveOutput(
            loss,
            {
                "accuracy": (logits.detach().argmax(1) == label).float().mean(),
                "chance": logits.new_full((), 1 / 2, dtype=torch.float32),
            },
        )

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return ((self.query_head, self.key_head),)
