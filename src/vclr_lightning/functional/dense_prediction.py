"""Dense predictive coding: maps of later blocks of a video, predicted from those of earlier ones.

Han, Xie and Zisserman, "Video representation learning by dense predictive coding" (DPC, ICCV
Workshops 2019), and "Memory-augmented dense predictive coding" (MemDPC, ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, relu

from vclr_lightning.functional.precision import full, without_autocast

Gate = tuple[Tensor, Tensor]
"""Weight ``(H, F + H, k, k)`` and bias ``(H,)`` of a convolution."""


def conv_gru_step(x: Tensor, state: Tensor, *, update: Gate, reset: Gate, new: Gate) -> Tensor:
    """Return the next state of a convolutional GRU.

    With ``[x; h]`` the channels of input and state: ``u, r = sigmoid(conv[x; h])``,
    ``c = tanh(conv[x; r h])``, and the next state is ``(1 - u) h + u c``. (``torch.nn.GRUCell``
    exchanges the parts of u, and multiplies r after the convolution.)

    Shape:
        - x: ``(N, F, h, w)``
        - state: ``(N, H, h, w)``, as the result

    Example:
        >>> x, state = torch.zeros(1, 2, 4, 4), torch.ones(1, 3, 4, 4)
        >>> gate = (torch.zeros(3, 5, 1, 1), torch.zeros(3))
        >>> conv_gru_step(x, state, update=gate, reset=gate, new=gate).unique()
        tensor([0.5000])
    """

    def conv(gate: Gate, state: Tensor) -> Tensor:
        weight, bias = gate
        return conv2d(torch.cat([x, state], dim=1), weight, bias, padding=weight.shape[-1] // 2)

    u, r = conv(update, state).sigmoid(), conv(reset, state).sigmoid()
    candidate = conv(new, r * state).tanh()
    return (1 - u) * state + u * candidate


def read_blocks(blocks: Tensor, cell: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the state of a recurrent cell after the blocks of a video; it starts at 0.

    Shape: ``(B, n, F, h, w)`` to ``(B, F, h, w)``.

    Example:
        >>> read_blocks(torch.ones(1, 3, 1, 1, 1), lambda block, state: 2 * state + block).item()
        7.0
    """
    state = torch.zeros_like(blocks[:, 0])
    for block in blocks.unbind(1):
        state = cell(block, state)
    return state


def predict_blocks(
    blocks: Tensor,
    *,
    steps: int,
    cell: Callable[[Tensor, Tensor], Tensor],
    predict: Callable[[Tensor], Tensor],
) -> Tensor:
    """Read the blocks of a video one after the other, then predict the next ``steps`` ones.

    The state starts at 0 and takes ReLU of each block, and later ReLU of each prediction.

    Args:
        blocks: signed maps.
        steps: blocks to predict.
        cell: takes an input and a state ``(B, F, h, w)``, and returns the next state.
        predict: takes a state, and returns the signed map of the block that follows.

    Shape: ``(B, n, F, h, w)`` to ``(B, steps, F, h, w)``.

    Example:
        >>> blocks = torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1, 1)
        >>> found = predict_blocks(blocks, steps=2, cell=torch.add, predict=lambda state: state + 1)
        >>> found.flatten().tolist()
        [4.0, 8.0]
    """
    state = read_blocks(relu(blocks), cell)
    predictions = [predict(state)]
    while len(predictions) < steps:
        state = cell(relu(predictions[-1]), state)
        predictions.append(predict(state))
    return torch.stack(predictions, dim=1)


def read_memory(scores: Tensor, memory: Tensor) -> Tensor:
    """Return at each position the mixture of memory rows that softmax of its scores gives.

    Section 3.2 of MemDPC: ``p = softmax(scores) M``.

    Shape:
        - scores: ``(B, slots, h, w)``
        - memory: ``(slots, F)``
        - result: ``(B, F, h, w)``

    Example:
        >>> memory = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> read_memory(torch.zeros(1, 2, 1, 1), memory).flatten().tolist()
        [0.5, 1.0]
    """
    return torch.einsum("bshw,sf->bfhw", scores.softmax(dim=1), memory)


@dataclass(frozen=True)
class DenseContrast:
    """Loss of dense predictions, the share that found their own map, and that of guessing."""

    loss: Tensor
    top1: Tensor
    chance: float


def positions(maps: Tensor) -> Tensor:
    """Return the vectors at all positions of maps, ``(B, n, F, h, w)`` to ``(B n h w, F)``.

    Example:
        >>> positions(torch.zeros(2, 3, 8, 4, 4)).shape
        torch.Size([96, 8])
    """
    return maps.movedim(2, -1).flatten(0, -2)


def dense_nce(prediction: Tensor, target: Tensor, *, first: int = 0) -> DenseContrast:
    """Contrast each prediction with the vectors at all positions of all targets.

    The score is the inner product, neither normalised nor divided by a temperature; the loss is
    the mean cross-entropy over predictions, with the target at the same place as the right class.
    All other positions, times and videos are negatives. Computed in at least float32.

    Args:
        prediction: one vector for each position of the predicted blocks.
        target: the vectors to tell apart; those of ``prediction`` from row ``first`` on, others
            (of other processes) before and after them.
        first: see ``target``.

    Shape:
        - prediction: ``(N, F)``
        - target: ``(M, F)``, M at least ``first + N``

    Example:
        >>> eye = 100 * torch.eye(3)
        >>> found = dense_nce(eye[1:], eye, first=1)
        >>> found.top1.item(), f"{found.loss.item():.4f}", found.chance == 1 / 3
        (1.0, '0.0000', True)
    """
    with without_autocast(prediction):
        scores = full(prediction) @ full(target).T
        own = first + torch.arange(len(scores), device=scores.device)
        loss = cross_entropy(scores, own)
    top1 = (scores.detach().argmax(dim=1) == own).float().mean()
    return DenseContrast(loss, top1, 1 / scores.shape[1])
