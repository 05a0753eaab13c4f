"""What a layer gives in one forward, and a score's gradient with respect to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)

Captured = Callable[[Tensor], tuple[Tensor, Tensor]]


def last_stage(network: nn.Module) -> str:
    """Return the name of the last convolutional stage: the last child that holds convolutions.

    That is ``layer4`` of a ResNet.

    Raises:
        UserError: there are no convolutions.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> last_stage(TinyBackbone(width=8))
        'blocks'
    """
    found = [
        name
        for name, child in network.named_children()
        if any(isinstance(module, _CONVOLUTIONS) for module in child.modules())
    ]
    if not found:
        raise UserError(
            f"{type(network).__name__} has no layer of convolutions, whose maps could be "
            "shown; name one that returns maps (layer=NAME)"
        )
    return found[-1]


@contextmanager
def capturing(layer: nn.Module, name: str) -> Iterator[Captured]:
    """Yield a function of a score that gives the layer's last output and the score's gradient.

    Nothing before the layer is differentiated, so parameters need no gradients. Of a layer that is
    called several times in one forward the last call counts.

    Args:
        layer: of a network that is called within the block, with gradients enabled.
        name: what to call the layer in a message.

    Raises:
        UserError: from the function: the layer was not called, returns no maps, or the score does
            not depend on them.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> with capturing(net[0], "0") as captured:
        ...     activations, gradients = captured(net(torch.zeros(2, 3, 8, 8))[:, 0].sum())
        >>> activations.shape, f"{gradients[0, 0].sum():.3f}", gradients[0, 1].sum().item()
        (torch.Size([2, 5, 6, 6]), '1.000', 0.0)
    """
    leaves: list[Tensor] = []
    others: list[str] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        leaves.clear()
        others.clear()
        if not isinstance(output, Tensor) or output.ndim not in (4, 5):
            is_tensor = isinstance(output, Tensor)
            others.append(str(tuple(output.shape)) if is_tensor else f"a {type(output).__name__}")
            return output
        # Copies: what comes next may work in place, on this memory or on the layer's own.
        leaves.append(output.detach().clone().requires_grad_())
        return leaves[0].clone()

    def captured(score: Tensor) -> tuple[Tensor, Tensor]:
        if others:
            raise UserError(
                f"layer={name} returns {others[0]}, which is no map (N, C, h, w) of pictures or "
                "(N, C, t, h, w) of clips; take a layer before the pooling"
            )
        if not leaves:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        gradients = None
        if score.requires_grad:
            gradients = torch.autograd.grad(score, leaves, allow_unused=True)[0]
        if gradients is None:
            raise UserError(f"the score does not depend on layer={name}; take another")
        return leaves[0].detach(), gradients

    handle = layer.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()
