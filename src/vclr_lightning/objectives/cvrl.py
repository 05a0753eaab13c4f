"""CVRL: two clips of a video find each other among all clips of a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from vclr_lightning.core.distributed import gather_with_gradient, rank, world_size
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput, Request
from vclr_lightning.functional.contrastive import unit
from vclr_lightning.functional.nt_xent import nt_xent
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.heads import check_temperature
from vclr_lightning.objectives.queued import contrast_metrics


class CVRL(Objective):
    """Contrast two clips of a video with each other and with all clips of the batch.

    Qian et al., "Spatiotemporal contrastive video representation learning", CVPR 2021. One network
    and one head encode both clips; there is no momentum encoder and no queue. The loss is the sum,
    not the mean, of both directions of :func:`~vclr_lightning.functional.nt_xent.nt_xent`. The
    batch is that of all processes, and so is the head's BatchNorm;
    ``trainer.sync_batchnorm=true`` does the same for the network's.

    The head is ``layers`` times ``Linear -> BatchNorm -> ReLU``, then ``Linear(hidden, D)``.

    Args:
        num_features: features of the backbone.
        first: the view of one clip, as :meth:`Request.of` describes it.
        second: the view of the other clip.
        embedding_dim: size of the embedding.
        hidden: size of the head's layers; ``None``: that of the features.
        layers: number of the head's layers before the last one.
        temperature: divides every similarity.
        bn_momentum: of the head's running statistics, which training does not use.

    Raises:
        UserError: a value is out of range; from forward, if the batch is a single video.

    Example:
        >>> cvrl = CVRL(num_features=8, embedding_dim=4, layers=1)
        >>> [name for name, _ in cvrl.head.named_children()]
        ['linear1', 'norm1', 'relu1', 'last']
    """

    def __init__(
        self,
        *,
        num_features: int,
        first: str = "clip1",
        second: str = "clip2",
        embedding_dim: int = 128,
        hidden: int | None = None,
        layers: int = 3,
        temperature: float = 0.1,
        bn_momentum: float = 0.003,
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.temperature = check_temperature(temperature)
        hidden = num_features if hidden is None else hidden
        if min(hidden, embedding_dim) < 1 or layers < 0:
            raise UserError(
                f"hidden={hidden} and embedding_dim={embedding_dim} of CVRL must be at least 1, "
                f"and layers={layers} at least 0"
            )
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        inside = num_features
        for i in range(1, layers + 1):
            steps[f"linear{i}"] = nn.Linear(inside, hidden)
            steps[f"norm{i}"] = GatheredBatchNorm(hidden, momentum=bn_momentum)
            steps[f"relu{i}"] = nn.ReLU(inplace=True)
            inside = hidden
        steps["last"] = nn.Linear(inside, embedding_dim)
        self.head = nn.Sequential(steps)

    def requests(self) -> Mapping[str, Request]:
        return {"first": Request.of(self.first), "second": Request.of(self.second)}

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        both = torch.cat([features["first"], features["second"]]).squeeze(1)  # (2 B, F)
        if len(both) * world_size() < 4:
            raise UserError("CVRL needs two videos to compare; set batch_size to at least 2")
        views = unit(self.head(both)).chunk(2)  # (B, D)
        candidates = torch.cat([gather_with_gradient(view) for view in views])
        videos = len(candidates) // 2
        own = torch.arange(len(views[0]), device=both.device) + rank() * len(views[0])
        direction = partial(nt_xent, candidates=candidates, temperature=self.temperature)
        one = direction(views[0], itself=own, positive=own + videos)
        other = direction(views[1], itself=own + videos, positive=own)
        metrics = contrast_metrics(one, self.temperature)
        return ObjectiveOutput(one.loss + other.loss, metrics)


class GatheredBatchNorm(nn.BatchNorm1d):
    """BatchNorm over the rows ``(n, F)`` of all processes, on any device and by any backend."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        normalised: Tensor = super().forward(gather_with_gradient(x))
        return normalised.narrow(0, rank() * len(x), len(x))
