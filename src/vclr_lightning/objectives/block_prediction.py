"""What DPC and MemDPC have in common: maps of blocks in, a contrast of all positions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from vclr_lightning.core.distributed import gather_with_gradient, rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request
from vclr_lightning.functional.dense_prediction import DenseContrast, dense_nce, positions
from vclr_lightning.objectives.base import Objective
from vclr_lightning.objectives.conv_gru import orthogonal_

Negatives = Literal["local", "global"]


class BlockPrediction(Objective):
    """Signed maps of contiguous blocks of a video, of which the last ``predict`` are predicted."""

    def __init__(self, *, num_features: int, of: str, predict: int, negatives: Negatives) -> None:
        super().__init__()
        if negatives not in get_args(Negatives):
            raise UserError(f"negatives={negatives!r} must be 'local' or 'global'")
        if predict < 1:
            raise UserError(f"predict={predict} must be at least 1")
        self.num_features, self.of = num_features, of
        self.predict, self.negatives = predict, negatives

    def requests(self) -> Mapping[str, Request]:
        return {"blocks": Request.of(self.of, pooled=False)}

    def averaged(self, maps: Tensor) -> Tensor:
        """Average maps ``(B, n, F, t, h, w)`` over the times that a block has left.

        Raises:
            UserError: there are too few blocks, or the maps have no positions or other channels.
        """
        if maps.ndim not in (5, 6) or maps.shape[2] != self.num_features:
            raise UserError(
                f"{self.of} gives maps (B, n, F, ...) of shape {tuple(maps.shape)}; this objective "
                f"needs F={self.num_features} features, height and width"
            )
        if maps.shape[1] <= self.predict:
            raise UserError(
                f"{self.of} has {maps.shape[1]} blocks, of which predict={self.predict} are to be "
                "predicted from the others; give the sampler more blocks"
            )
        return maps.mean(dim=3) if maps.ndim == 6 else maps

    def contrast(self, prediction: Tensor, target: Tensor) -> DenseContrast:
        """Contrast predicted blocks ``(B, n, F, h, w)`` with the true ones.

        With ``negatives="global"`` also with those of other processes: the loss and its gradient
        are those of one process with the whole batch.
        """
        own = positions(target)
        if self.negatives == "local":
            return dense_nce(positions(prediction), own)
        every = gather_with_gradient(own)
        return dense_nce(positions(prediction), every, first=rank() * len(own))


def pointwise_network(num_features: int, outputs: int, *, gain: float) -> nn.Sequential:
    """Return ``conv 1x1 -> ReLU -> conv 1x1``, with orthogonal weights."""
    layers = nn.Sequential(
        nn.Conv2d(num_features, num_features, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(num_features, outputs, 1),
    )
    orthogonal_(layers, gain=gain)
    return layers
