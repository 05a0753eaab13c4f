"""Inter-frame loss: frames of one video against a queue of other videos' frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.objectives.queued import QueuedObjective


class InterFrame(QueuedObjective):
    """Contrast the anchor frame with three keys of its video (Section 3.1 of the paper).

    The keys are the second view of the anchor frame x1, and the frames x2 and x3; negatives are a
    queue to which all three are added: every video's second view, then every x2, then every x3.

    Args:
        num_features: features of the backbone.
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
        >>> sorted(inter.requests())
        ['others', 'query', 'second']
    """

    keys_per_video = 3

    def requests(self) -> Mapping[str, Request]:
        return frame_requests()

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        query = unit(self.query_head(features["query"]).squeeze(1))  # (B, D)
        with torch.no_grad():
            keys = torch.cat([features["second"], features["others"]], dim=1)  # (B, 3, F)
            keys = unit(self.key_head(keys))
        return self.contrast(query, keys, batch)


def frame_requests() -> dict[str, Request]:
    """Return the requests of the frame-level losses: x1 as query; its second view, x2, x3 as keys.

    The released code encodes these frames one by one.
    """
    return {
        "query": Request("query", ("anchor",), rows="x1"),
        "second": Request("key", ("second",)),
        "others": Request("key", ("anchor", "extra"), rows="others", apart=True),
    }
