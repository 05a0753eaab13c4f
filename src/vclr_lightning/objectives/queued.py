"""Base class of the objectives whose negatives are a queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vclr_lightning.core.distributed import gather
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.queue import KeyQueue, QueueInit
from vclr_lightning.core.types import Batch, ObjectiveOutput
from vclr_lightning.functional.contrastive import Contrast, queue_nce
from vclr_lightning.functional.embedding import effective_rank, spread
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import check_temperature, projection_heads

OwnMask = Literal["video", "group", "none"]

# Enough keys to detect a collapse, few enough for a cheap eigendecomposition.
_DIAGNOSED_KEYS = 1024


class Negatives(NamedTuple):
    """Negatives of all queries, and whether those of a query's own video are left out."""

    rows: Tensor  # (K, D)
    ids: Tensor  # (K,), of their videos
    masked: bool


class QueuedObjective(Objective):
    """A pair of heads, a queue of negatives, and the mask of a query's own video."""

    keys_per_video: int  # added to the queue each time that a video is seen
    queue: KeyQueue

    def __init__(
        self,
        *,
        num_features: int,
        embedding_dim: int = 128,
        temperature: float = 0.1,
        queue_size: int = 131072,
        own_mask: OwnMask = "video",
        queue_init: QueueInit = "unit",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if own_mask not in ("video", "group", "none"):
            raise UserError(f"own_mask={own_mask!r} must be 'video', 'group' or 'none'")
        self.temperature = check_temperature(temperature)
        self.own_mask = own_mask
        self.query_head, self.key_head = projection_heads(num_features, embedding_dim)
        self.queue = KeyQueue(
            queue_size, embedding_dim, init=queue_init, seed=(seed, type(self).__name__)
        )

    def contrast(self, query: Tensor, keys: Tensor, batch: Batch) -> ObjectiveOutput:
        """Return the loss of ``query`` ``(B, D)`` against its ``keys`` ``(B, P, D)``."""
        ids = self.ids(batch)
        negatives = self.negatives(keys, ids)
        contrast = queue_nce(
            query,
            keys,
            negatives.rows,
            temperature=self.temperature,
            own_ids=ids if negatives.masked else None,
            queue_ids=negatives.ids,
        )
        return ObjectiveOutput(
            loss=contrast.loss,
            metrics=contrast_metrics(contrast, self.temperature),
            pending={"keys": keys.detach(), "ids": ids},
        )

    def ids(self, batch: Batch) -> Tensor:
        """Return what :attr:`own_mask` compares, ``(B,)``."""
        return batch["group_id"] if self.own_mask == "group" else batch["video_id"]

    def negatives(self, keys: Tensor, ids: Tensor) -> Negatives:
        """Return the queue; or the keys ``(B, P, D)`` of all ranks that its first step begins with.

        Of these, a query's own are left out in any case.
        """
        if self.queue.waiting:
            return Negatives(*self.queue.repeated(*self.queued(gather(keys), gather(ids))), True)
        return Negatives(self.queue.rows, self.queue.ids, self.own_mask != "none")

    def queued(self, keys: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys ``(B, P, D)`` into the queue's order: each video's first, then each second, ...

        Shape: returns ``(B P, D)`` and ``(B P,)``.
        """
        return keys.transpose(0, 1).flatten(0, 1), ids.repeat(keys.shape[1])

    def commit(self, pending: Mapping[str, Tensor], step: int) -> None:
        self.queue.push(*self.queued(pending["keys"], pending["ids"]), step)

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return ((self.query_head, self.key_head),)

    @torch.no_grad()
    def diagnostics(self, step: int) -> Mapping[str, Tensor]:
        newest = self.queue.newest(_DIAGNOSED_KEYS)
        return {
            "queue_fill": self.queue.fill,
            "queue_age": self.queue.age(step),
            "spread": spread(newest),
            "effective_rank": effective_rank(newest),
        }


def contrast_metrics(contrast: Contrast, temperature: float) -> dict[str, Tensor]:
    """Return the metrics of a contrastive loss, with similarities as cosines."""
    hit = contrast.positive > contrast.hardest[:, None]
    return {
        "top1": hit.float().mean(),
        "positive_similarity": contrast.positive.mean() * temperature,
        "negative_similarity": contrast.negative.mean() * temperature,
    }
