"""Video-level loss: two tuples of one video against a queue of other videos' tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import momentum_copy
from vclr_lightning.core.queue import QueueInit
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.functional.embedding import average
from vclr_lightning.objectives.heads import check_num_segments, check_tuple
from vclr_lightning.objectives.queued import OwnMask, QueuedObjective


class VideoLevel(QueuedObjective):
    """Contrast two independently drawn tuples of a video (Section 3.2 of the paper).

    The consensus combines the features of a tuple's clips before the head.

    Args:
        num_features: features of the backbone.
        num_segments: clips in a tuple.
        query: the view that is the query; see :meth:`~vclr_lightning.core.types.Request.of`.
        key: the view that is its key, by the encoder ``key``.
        embedding_dim: size of the embedding.
        temperature: divides every similarity.
        queue_size: number of keys in the queue.
        consensus: ``(B, S, F)`` to ``(B, F)``; a module is trained and has a momentum copy.
        own_mask: exclude keys of the query's own ``"video"`` or ``"group"`` from its negatives, or
            ``"none"``.
        queue_init: initial keys, ``"unit"`` or ``"uniform"``.
        seed: of the initial keys.

    Raises:
        UserError: a value is out of range, or the data gives tuples of another length.

    Example:
        >>> video = VideoLevel(num_features=8, num_segments=3, embedding_dim=4, queue_size=16)
        >>> video.requests()["key"].views
        ('positive',)
    """

    keys_per_video = 1
    segments: Tensor

    def __init__(
        self,
        *,
        num_features: int,
        num_segments: int = 3,
        query: str = "anchor",
        key: str = "positive",
        embedding_dim: int = 128,
        temperature: float = 0.1,
        queue_size: int = 131072,
        consensus: Callable[[Tensor], Tensor] = average,
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
        self.query, self.key = query, key
        self.num_segments = check_num_segments(num_segments)
        self.consensus = consensus
        self.key_consensus = (
            momentum_copy(consensus) if isinstance(consensus, nn.Module) else consensus
        )
        # In the checkpoint, so that a run with another number of segments cannot resume it.
        self.register_buffer("segments", torch.tensor(num_segments))

    def requests(self) -> Mapping[str, Request]:
        return {"query": Request.of(self.query), "key": Request.of(self.key, encoder="key")}

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        check_tuple(features["query"], self.num_segments, "the video-level loss")
        query = unit(self.query_head(self.consensus(features["query"])))  # (B, D)
        with torch.no_grad():
            key = unit(self.key_head(self.key_consensus(features["key"])))  # (B, D)
        return self.contrast(query, key[:, None], batch)

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        yield from super().momentum_pairs()
        if isinstance(self.consensus, nn.Module) and isinstance(self.key_consensus, nn.Module):
            yield self.consensus, self.key_consensus

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = int(state_dict.get(f"{prefix}segments", self.num_segments))
        if saved != self.num_segments:
            raise UserError(
                f"the checkpoint was trained with num_segments={saved}, but this run has "
                f"{self.num_segments}; set num_segments={saved} to continue it, or start a new run"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
