"""VINCE: several frames of a video as queries, and others as their common positives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from vclr_lightning.core.distributed import average, gather, gather_with_gradient
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import summarize_negatives, unit
from vclr_lightning.functional.multi_pair import MultiPair, multi_pair_nce
from vclr_lightning.objectives.heads import check_temperature
from vclr_lightning.objectives.queued import OwnMask, QueuedObjective


class Vince(QueuedObjective):
    """Contrast each query of a video with each of its keys, against other videos and a queue.

    Gordon, Ehsani, Fox, Farhadi, "Watching the world go by: representation learning from unlabeled
    videos" (2020), multi-frame multi-pair. With ``s_ij = q_i k_j / t`` over the keys of the whole
    batch and the queue,

        ``L = mean over all (i, p) of one video of
        -log(exp(s_ip) / (exp(s_ip) + sum over other videos' keys j of exp(s_ij)))``.

    A video's queries and keys are four frames each, drawn with replacement, so all of its keys are
    positives of all of its queries, each alone against all negatives. The batch is that of all
    processes. Optionally the queries are compared with each other in the same way, with gradient on
    both sides and each query as one of its own positives, and that loss is added.

    Args:
        num_features: features of the backbone.
        query: the view whose clips are the queries; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        key: the view whose clips are the keys, by the encoder ``key``.
        self_temperature: of the comparison of the queries with each other (0.03 in the paper's
            ResNet-50); ``None``: no such comparison.
        temperature: divides every similarity (0.2 in the paper's ResNet-50).
        embedding_dim: size of the embedding (128 in the paper's ResNet-50).
        queue_size: number of keys in the queue.
        own_mask: exclude queued keys of the query's own ``"video"`` or ``"group"``, or ``"none"``.
        queue_init: initial keys: ``"batch"`` those of the first batch over and over (as released),
            or ``"unit"`` or ``"uniform"``.
        seed: of random initial keys.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> vince = Vince(num_features=8, embedding_dim=4, queue_size=16)
        >>> frames = {"query": torch.randn(2, 4, 8), "key": torch.randn(2, 4, 8)}
        >>> batch = {"video_id": torch.tensor([5, 7])}
        >>> out = vince(frames, batch)
        >>> out.loss.ndim, out.pending["keys"].shape
        (0, torch.Size([2, 4, 4]))
    """

    keys_per_video = 4

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "queries",
        key: str = "keys",
        self_temperature: float | None = None,
        temperature: float = 0.07,
        embedding_dim: int = 64,
        queue_size: int = 65536,
        own_mask: OwnMask = "none",
        **options: Annotated[Any, QueuedObjective],
    ) -> None:
        super().__init__(
            num_features=num_features,
            temperature=temperature,
            embedding_dim=embedding_dim,
            queue_size=queue_size,
            own_mask=own_mask,
            **({"queue_init": "batch"} | options),
        )
        self.query, self.key = query, key
        self.self_temperature = (
            None if self_temperature is None else check_temperature(self_temperature)
        )

    def requests(self) -> Mapping[str, Request]:
        return {
            "query": Request.of(self.query),
            "key": Request.of(self.key, encoder="key"),
        }

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        query = unit(self.query_head(features["query"]))  # (B, r, D)
        with torch.no_grad():
            keys = unit(self.key_head(features["key"]))  # (B, P, D)
        clips = query.shape[1]
        videos = batch["video_id"]
        own = videos.repeat_interleave(clips)  # (B r,)
        query = query.flatten(0, 1)

        ids = self.ids(batch)
        queue = self.negatives(keys, ids)
        queued = summarize_negatives(
            query,
            queue.rows,
            temperature=self.temperature,
            own_ids=ids.repeat_interleave(clips) if queue.masked else None,
            queue_ids=queue.ids,
        )
        all_keys, all_videos = self.queued(gather(keys), gather(videos))
        contrast = multi_pair_nce(
            query,
            all_keys,
            own[:, None] == all_videos,
            temperature=self.temperature,
            further=queued,
        )
        loss = _over_all_pairs(contrast)
        metrics = {
            "top1": contrast.top1,
            "positive_similarity": contrast.positive * self.temperature,
            "negative_similarity": contrast.negative * self.temperature,
        }
        if self.self_temperature is not None:
            queries = gather_with_gradient(query)
            positive = own[:, None] == gather(own)
            itself = multi_pair_nce(query, queries, positive, temperature=self.self_temperature)
            self_loss = _over_all_pairs(itself)
            loss = loss + self_loss
            metrics |= {"self_loss": self_loss.detach(), "self_top1": itself.top1}
        return ObjectiveOutput(loss, metrics, pending={"keys": keys.detach(), "ids": ids})

    def queued(self, keys: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys ``(B, P, D)`` into the queue's order: all of a video, then all of the next."""
        return keys.flatten(0, 1), ids.repeat_interleave(keys.shape[1])


def _over_all_pairs(contrast: MultiPair) -> Tensor:
    """Weight a rank's mean such that the ranks' average is the mean over the pairs of all."""
    return contrast.loss * (contrast.pairs / average(contrast.pairs.to(contrast.loss)))
