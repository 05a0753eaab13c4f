"""A convolutional GRU, the memory of dense predictive coding."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.dense_prediction import conv_gru_step


class ConvGRUCell(nn.Module):
    """One step of a GRU on maps; see :func:`~.conv_gru_step` for the formula.

    Dropout acts on the new state, which is fed back as dropped. Weights start orthogonal.

    Args:
        num_features: channels of input and state.
        kernel_size: of the convolutions, odd.
        dropout: probability.
        gain: of the initial weights.

    Shape: input and state ``(N, F, h, w)`` to the next state.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> cell = ConvGRUCell(num_features=8, dropout=0.0)
        >>> x = torch.zeros(2, 8, 4, 4)
        >>> cell(x, x).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        *,
        num_features: int,
        kernel_size: int = 1,
        dropout: float = 0.1,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"kernel_size={kernel_size} of a GRU must be odd")
        if not 0 <= dropout < 1:
            raise UserError(f"dropout={dropout} must be within 0..1")
        self.dropout = dropout
        for gate in ("update", "reset", "new"):
            conv = nn.Conv2d(2 * num_features, num_features, kernel_size, padding=kernel_size // 2)
            self.add_module(gate, conv)
        orthogonal_(self.children(), gain=gain)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        gates = {name: (gate.weight, gate.bias) for name, gate in self.named_children()}
        state = conv_gru_step(x, state, **gates)  # type: ignore[arg-type]
        return torch.dropout(state, self.dropout, self.training and self.dropout > 0)


def orthogonal_(layers: Iterable[nn.Module], *, gain: float) -> None:
    """Set weights of convolutions among ``layers`` to orthogonal ones, and biases to 0."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain=gain)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
