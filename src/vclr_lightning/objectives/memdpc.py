"""Memory-augmented dense predictive coding (MemDPC)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch, ObjectiveOutput
from vclr_lightning.functional.dense_prediction import predict_blocks, read_memory
from vclr_lightning.objectives.block_prediction import (
    BlockPrediction,
    Negatives,
    pointwise_network,
)
from vclr_lightning.objectives.conv_gru import ConvGRUCell

_GAIN = 0.1  # of the initial weights


class MemDPC(BlockPrediction):
    """Predict the maps of a video's blocks, forwards and backwards, as mixtures of a memory.

    Han, Xie and Zisserman, "Memory-augmented dense predictive coding for video representation
    learning", ECCV 2020. As :class:`~.DPC`, but a prediction is ``p = softmax(phi(c)) M``, at each
    position a convex combination of the rows of a learned memory M; and a second GRU reads the
    blocks from the last to the first and predicts the first ones. Both directions share phi and M;
    the loss is the sum of theirs.

    Args:
        num_features: channels of the maps.
        of: see :class:`~.DPC`.
        predict: number of blocks predicted in each direction.
        slots: rows of the memory, which is a parameter like any other.
        dropout: of the GRUs' states, at every step.
        negatives: see :class:`~.DPC`.

    Shape: - features: ``(B, n, F, t, h, w)``, averaged over t, or ``(B, n, F, h, w)``

    Raises:
        UserError: a value is out of range; from forward, if the maps do not fit.

    Example:
        >>> memdpc = MemDPC(num_features=256)
        >>> sum(parameter.numel() for parameter in memdpc.parameters())
        1379072
    """

    def __init__(
        self,
        *,
        num_features: int,
        of: str = "blocks",
        predict: int = 3,
        slots: int = 1024,
        dropout: float = 0.1,
        negatives: Negatives = "local",
    ) -> None:
        super().__init__(num_features=num_features, of=of, predict=predict, negatives=negatives)
        if slots < 1:
            raise UserError(f"slots={slots} must be at least 1")
        for direction in ("forward_gru", "backward_gru"):
            cell = ConvGRUCell(num_features=num_features, dropout=dropout, gain=_GAIN)
            self.add_module(direction, cell)
        self.addressing = pointwise_network(num_features, slots, gain=_GAIN)
        self.memory = nn.Parameter(torch.randn(slots, num_features))

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        blocks = self.averaged(features["blocks"])  # (B, n, F, h, w)
        directions = {"forward": blocks, "backward": blocks.flip(1)}
        found = {}
        for direction, ordered in directions.items():
            prediction = predict_blocks(
                ordered[:, : -self.predict],
                steps=self.predict,
                cell=self.get_submodule(f"{direction}_gru"),
                predict=self._recalled,
            )
            found[direction] = self.contrast(prediction, ordered[:, -self.predict :])
        top1 = {f"top1_{direction}": one.top1 for direction, one in found.items()}
        ahead, back = found["forward"], found["backward"]
        chance = ahead.top1.new_full((), ahead.chance)
        return ObjectiveOutput(ahead.loss + back.loss, {**top1, "chance": chance})

    def _recalled(self, state: Tensor) -> Tensor:
        return read_memory(self.addressing(state), self.memory)
