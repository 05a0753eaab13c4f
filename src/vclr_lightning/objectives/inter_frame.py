"""Inter-frame loss: frames of one video against a queue of other videos' frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.queue import QueueInit
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.objectives.queued import OwnMask, QueuedObjective

OTHERS = ("anchor+extra[x2]", "anchor+extra[x3]")
"""The frames x2 and x3, which a tuple of fewer than three clips has in its view ``extra``."""


class InterFrame(QueuedObjective):
    """Contrast a query with one or several keys of its video (Section 3.1 of the paper).

    By default the query is the anchor frame x1, and the keys are its second view and the frames x2
    and x3. Each key alone is contrasted with the queue, and the loss is the mean over the pairs.
    All keys are added to the queue: every video's first key, then every video's second, and so on.

    Args:
        num_features: features of the backbone.
        query: the view of one clip that is the query; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        keys: views whose clips are its keys, by the encoder ``key``.
        embedding_dim: size of the embedding.
        temperature: divides every similarity.
        queue_size: number of keys in the queue.
        own_mask: exclude keys of the query's own ``"video"`` or ``"group"`` from its negatives, or
            ``"none"``.
        queue_init: initial keys, ``"unit"`` or ``"uniform"``.
        seed: of the initial keys.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> inter = InterFrame(num_features=8, embedding_dim=4, queue_size=16)
        >>> list(inter.requests())
        ['query', 'key0', 'key1', 'key2']
    """

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "anchor[x1]",
        keys: Sequence[str] = ("second", *OTHERS),
        embedding_dim: int = 128,
        temperature: float = 0.1,
        queue_size: int = 131072,
        own_mask: OwnMask = "video",
        queue_init: QueueInit = "unit",
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_features=num_features,
            embedding_dim=embedding_dim,
            temperature=temperature,
            queue_size=queue_size,
            own_mask=own_mask,
            queue_init=queue_init,
            seed=seed,
        )
        if isinstance(keys, str) or not keys:
            raise UserError(f"keys={keys!r} must be a list of views, such as [second]")
        self.query, self.keys = query, tuple(keys)
        self.keys_per_video = len(self.keys)

    def requests(self) -> Mapping[str, Request]:
        keys = {f"key{i}": Request.of(key, encoder="key") for i, key in enumerate(self.keys)}
        return {"query": Request.of(self.query), **keys}

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        query = unit(self.query_head(features["query"]).squeeze(1))  # (B, D)
        with torch.no_grad():
            found = [features[f"key{i}"] for i in range(len(self.keys))]
            keys = unit(self.key_head(torch.cat(found, dim=1)))  # (B, P, D)
        return self.contrast(query, keys, batch)
