"""Dense predictive coding (DPC)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vclr_lightning.core.types import Batch, ObjectiveOutput
from vclr_lightning.functional.dense_prediction import predict_blocks
from vclr_lightning.objectives.block_prediction import (
    BlockPrediction,
    Negatives,
    pointwise_network,
)
from vclr_lightning.objectives.conv_gru import ConvGRUCell


class DPC(BlockPrediction):
    """Predict the maps of a video's next blocks from those of its first ones.

    Han, Xie and Zisserman, "Video representation learning by dense predictive coding", ICCV
    Workshops 2019. A GRU reads ReLU of the first blocks' maps z; from its state c a small network
    predicts the next block, ``p = phi(c)``, which the GRU then reads in turn. With i for block,
    position and video, the loss of a prediction is
    ``-log(exp(p_i z_i) / sum_j exp(p_i z_j))``, j over all positions of all predicted blocks in the
    batch. Gradients flow into predictions and targets.

    Args:
        num_features: channels of the maps.
        of: the blocks in temporal order, as :meth:`Request.of` describes them. Their maps should
            be signed, that is, before the network's last ReLU.
        predict: number of blocks predicted; the others are read.
        dropout: of the GRU's state, at every step.
        negatives: ``"local"``: positions of this process's videos, as published; ``"global"``: of
            all processes.

    Shape: - features: ``(B, n, F, t, h, w)``, averaged over t, or ``(B, n, F, h, w)``

    Raises:
        UserError: a value is out of range; from forward, if the maps do not fit.

    Example:
        >>> dpc = DPC(num_features=256)
        >>> sum(parameter.numel() for parameter in dpc.parameters())
        525568
    """

    def __init__(
        self,
        *,
        num_features: int,
        of: str = "blocks",
        predict: int = 3,
        dropout: float = 0.1,
        negatives: Negatives = "local",
    ) -> None:
        super().__init__(num_features=num_features, of=of, predict=predict, negatives=negatives)
        self.gru = ConvGRUCell(num_features=num_features, dropout=dropout)
        self.predictor = pointwise_network(num_features, num_features, gain=1.0)

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        blocks = self.averaged(features["blocks"])  # (B, n, F, h, w)
        past, future = blocks[:, : -self.predict], blocks[:, -self.predict :]
        prediction = predict_blocks(past, steps=self.predict, cell=self.gru, predict=self.predictor)
        found = self.contrast(prediction, future)
        chance = found.top1.new_full((), found.chance)
        return ObjectiveOutput(found.loss, {"top1": found.top1, "chance": chance})
