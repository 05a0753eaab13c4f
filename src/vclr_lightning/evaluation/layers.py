"""Outputs of any layer of a network, by the layer's name, and gradients with respect to them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a score to a layer's activations and the score's gradient with respect to them."""


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of this name, as in ``network.named_modules()``.

    Layers of a wrapped network are found with and without the wrapper's prefix (``net``).

    Raises:
        UserError: there is no such layer; the message contains similar names.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> find_layer(TinyBackbone(width=8), "blocks.0.conv").out_channels
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: TinyBackbone has no layer 'blocks.0.conv'; near it \
are blocks.0.conv2, blocks.0.conv1, blocks.2.conv2
    """
    layers: dict[str, nn.Module] = {key: layer for key, layer in network.named_modules() if key}
    for key in (name, f"net.{name}", name.removeprefix("net.")):
        if key in layers:
            return layers[key]
    near = difflib.get_close_matches(name, layers, n=3)
    children = ", ".join(key for key in layers if "." not in key)
    hint = f"near it are {', '.join(near)}" if near else f"it has {children}"
    raise UserError(f"{type(network).__name__} has no layer {name!r}; {hint}")


def last_stage(network: nn.Module) -> str:
    """Return the name of the last child with convolutions, such as ``layer4`` of a ResNet.

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
        if any(isinstance(module, nn.Conv2d | nn.Conv3d) for module in child.modules())
    ]
    if not found:
        raise UserError(
            f"{type(network).__name__} has no convolutional layer whose maps could be shown; name "
            "one that returns maps (layer=NAME)"
        )
    return found[-1]


@contextmanager
def _hook(layer: nn.Module, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the outputs of a layer while the block runs."""
    handle = layer.register_forward_hook(lambda module, inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def layer_features(layer: nn.Module, name: str) -> Iterator[Callable[[], Tensor]]:
    """Yield a function that returns the features ``(N, F)`` of a layer's last output.

    A map is averaged over its positions. If a forward calls the layer several times (a ReLU that a
    block shares), the last call counts.

    Args:
        layer: of a network that is called within the block.
        name: the layer's name in messages.

    Raises:
        UserError: from the function: the layer was not called, or returns neither features nor a
            map.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())
        >>> with layer_features(net[0], "0") as features:
        ...     _ = net(torch.zeros(2, 3, 8, 8))
        ...     features().shape
        torch.Size([2, 5])
    """
    outputs: list[Any] = []

    def keep(output: Any) -> None:
        outputs[:] = [output]

    def features() -> Tensor:
        if not outputs:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        output = outputs[0]
        if not isinstance(output, Tensor) or output.ndim not in (2, 4, 5):
            raise UserError(
                f"layer={name} returns {_kind(output)}, which is neither features (N, F) nor a map "
                "(N, F, ...) of pictures or clips; take another layer"
            )
        return output if output.ndim == 2 else output.flatten(2).mean(dim=2)

    with _hook(layer, keep):
        yield features


@contextmanager
def layer_gradients(layer: nn.Module, name: str) -> Iterator[Gradients]:
    """Yield a function from a score to a layer's last output and the score's gradient.

    Nothing before the layer is differentiated, so parameters need no gradients. If a forward calls
    the layer several times, the last call counts.

    Args:
        layer: of a network that is called within the block, with gradients enabled.
        name: the layer's name in messages.

    Raises:
        UserError: from the function: the layer was not called, returns no maps, or the score does
            not depend on them.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> with layer_gradients(net[0], "0") as of_score:
        ...     activations, gradients = of_score(net(torch.zeros(2, 3, 8, 8))[:, 0].sum())
        >>> activations.shape, f"{gradients[0, 0].sum():.3f}", gradients[0, 1].sum().item()
        (torch.Size([2, 5, 6, 6]), '1.000', 0.0)
    """
    leaves: list[Tensor] = []
    others: list[Any] = []

    def keep(output: Any) -> Any:
        leaves.clear()
        others.clear()
        if not isinstance(output, Tensor) or output.ndim not in (4, 5):
            others.append(output)
            return output
        # Copies: later layers may work in place, on this memory or on the layer's own.
        leaves.append(output.detach().clone().requires_grad_())
        return leaves[0].clone()

    def of_score(score: Tensor) -> tuple[Tensor, Tensor]:
        if others:
            raise UserError(
                f"layer={name} returns {_kind(others[0])}, which is no map (N, C, h, w) of pictures"
                " or (N, C, t, h, w) of clips; take a layer before the pooling"
            )
        if not leaves:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        gradients = None
        if score.requires_grad:
            gradients = torch.autograd.grad(score, leaves, allow_unused=True)[0]
        if gradients is None:
            raise UserError(f"the score does not depend on layer={name}; take another")
        return leaves[0].detach(), gradients

    with _hook(layer, keep):
        yield of_score


def _kind(output: object) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
