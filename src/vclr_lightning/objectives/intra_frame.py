"""Intra-frame loss: two views of a frame against other frames of its own video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import IntraForm, intra_nce, unit
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import check_temperature, projection_heads
from vclr_lightning.objectives.inter_frame import OTHERS
from vclr_lightning.objectives.queued import contrast_metrics


class IntraFrame(Objective):
    """Contrast two views of a frame with other frames of its video (Section 3.1 of the paper).

    There is no queue: the negatives are x2 and x3 of the same video.

    Args:
        num_features: features of the backbone.
        query: the view of one clip that is the query; see
            :meth:`~vclr_lightning.core.types.Request.of`.
        positive: the view of one clip that is its positive, by the encoder ``key``.
        negatives: views whose clips are its negatives, likewise.
        embedding_dim: size of the embedding.
        temperature: divides every similarity.
        form: ``"joint"``: one softmax over the positive and both negatives (the paper);
            ``"pairwise"``: a two-way softmax per negative, averaged (the released code).

    Raises:
        UserError: a value is out of range.

    Example:
        >>> intra = IntraFrame(num_features=8, embedding_dim=4)
        >>> intra.requests()["query"].rows
        'x1'
    """

    def __init__(
        self,
        *,
        num_features: int,
        query: str = "anchor[x1]",
        positive: str = "second",
        negatives: Sequence[str] = OTHERS,
        embedding_dim: int = 128,
        temperature: float = 0.1,
        form: IntraForm = "joint",
    ) -> None:
        super().__init__()
        if form not in ("joint", "pairwise"):
            raise UserError(f"form={form!r} of the intra-frame loss must be 'joint' or 'pairwise'")
        if isinstance(negatives, str) or not negatives:
            raise UserError(f"negatives={negatives!r} must be a list of views, such as [second]")
        self.query, self.positive, self.negatives = query, positive, tuple(negatives)
        self.temperature = check_temperature(temperature)
        self.form: IntraForm = form
        self.query_head, self.key_head = projection_heads(num_features, embedding_dim)

    def requests(self) -> Mapping[str, Request]:
        return {
            "query": Request.of(self.query),
            "positive": Request.of(self.positive, encoder="key"),
            **{
                f"negative{i}": Request.of(negative, encoder="key")
                for i, negative in enumerate(self.negatives)
            },
        }

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        query = unit(self.query_head(features["query"]).squeeze(1))  # (B, D)
        with torch.no_grad():
            positive = unit(self.key_head(features["positive"]).squeeze(1))  # (B, D)
            others = [features[f"negative{i}"] for i in range(len(self.negatives))]
            # Not contiguous: the head rounds as it does for a slice, as in earlier versions.
            joined = torch.cat([other.transpose(0, 1) for other in others]).transpose(0, 1)
            negatives = unit(self.key_head(joined))  # (B, N, D)
        contrast = intra_nce(
            query, positive, negatives, temperature=self.temperature, form=self.form
        )
        return ObjectiveOutput(contrast.loss, contrast_metrics(contrast, self.temperature))

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return ((self.query_head, self.key_head),)
