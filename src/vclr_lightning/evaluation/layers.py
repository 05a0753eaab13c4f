"""Outputs of any layer of a network, by the layer's name, and gradients with respect to them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.layer_maps import first_tensor, is_attention, watched_forward

_CLASS_TOKENS = {"cls_token", "class_token"}

Gradients = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a score to a layer's activations and the score's gradient with respect to them."""


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of this name, as in ``network.named_modules()``.

    Layers of a wrapped network are found with and without the wrapper's prefix (``net``, and
    ``_orig_mod`` of compiled ones).

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
    layers: dict[str, nn.Module] = {
        key.replace("_orig_mod.", ""): layer for key, layer in network.named_modules() if key
    }
    name = name.replace("_orig_mod.", "")
    for key in (name, f"net.{name}", name.removeprefix("net.")):
        if key in layers:
            return layers[key]
    near = difflib.get_close_matches(name, layers, n=3)
    children = ", ".join(key for key in layers if "." not in key)
    hint = f"near it are {', '.join(near)}" if near else f"it has {children}"
    raise UserError(f"{type(network).__name__} has no layer {name!r}; {hint}")


def default_layer(network: nn.Module) -> str:
    """Return the name of the layer whose map explains a network's features best.

    Of a convolutional network this is its last child with convolutions, such as ``layer4`` of a
    ResNet; of a transformer, its last child with attention. Where a class token collects the
    features, the tokens of the other positions end without influence, so it is what the last block
    attends to: its first norm.

    Raises:
        UserError: there are neither convolutions nor attention.

    Example:
        >>> from vclr_lightning.models import TimmBackbone, TinyBackbone
        >>> default_layer(TinyBackbone(width=8)), default_layer(TimmBackbone(name="test_vit"))
        ('blocks', 'blocks.5.norm1')
    """
    modules = dict(network.named_modules())
    attention = [name for name, module in modules.items() if name and is_attention(module)]
    kinds = nn.Conv2d | nn.Conv3d
    found = [
        name
        for name, child in network.named_children()
        if any(isinstance(module, kinds) or is_attention(module) for module in child.modules())
    ]
    if not found:
        raise UserError(
            f"{type(network).__name__} has no layer of convolutions or attention whose maps could "
            "be shown; name one that returns maps (layer=NAME)"
        )
    parameters = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
    if attention and parameters & _CLASS_TOKENS:
        block = attention[-1].rpartition(".")[0]
        name, first = next(iter(modules[block].named_children()))
        if isinstance(first, nn.LayerNorm):
            return f"{block}.{name}"
        parent, _, number = block.rpartition(".")  # norms after attention: the block before it
        return f"{parent}.{int(number) - 1}" if number.isdecimal() and int(number) else block
    last = found[-1]
    while isinstance(modules[last], nn.ModuleList) and len(modules[last]):  # never called itself
        last = f"{last}.{len(modules[last]) - 1}"
    return last


@contextmanager
def _hook(layer: nn.Module, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the outputs of a layer while the block runs."""
    handle = layer.register_forward_hook(lambda module, inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def layer_features(
    layer: nn.Module, name: str, *, network: nn.Module
) -> Iterator[Callable[[], Tensor]]:
    """Yield a function that returns the features ``(N, F)`` of a layer's last output.

    A map, in any layout, is averaged over its positions. If a forward calls the layer several times
    (a ReLU that a block shares), the last call counts.

    Args:
        layer: of the network.
        name: the layer's name in messages.
        network: called within the block.

    Raises:
        UserError: from the function: the layer was not called, or returns neither features nor a
            map.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())
        >>> with layer_features(net[0], "0", network=net) as features:
        ...     _ = net(torch.zeros(2, 3, 8, 8))
        ...     features().shape
        torch.Size([2, 5])
    """
    outputs: list[Any] = []

    def keep(output: Any) -> None:
        outputs[:] = [(first_tensor(output), watched.seen())]

    def features() -> Tensor:
        if not outputs:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        output, seen = outputs[0]
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4, 5):
            raise UserError(
                f"layer={name} returns {_kind(output)}, which is neither features (N, F) nor a map "
                "(N, F, ...) of pictures or clips; take another layer"
            )
        maps: Tensor = output if output.ndim == 2 else seen.layout(output, name)(output)
        return maps if maps.ndim == 2 else maps.flatten(2).mean(dim=2)

    with watched_forward(network) as watched, _hook(layer, keep):
        yield features


@contextmanager
def layer_gradients(
    layer: nn.Module, name: str, *, network: nn.Module | None = None
) -> Iterator[Gradients]:
    """Yield a function from a score to a layer's last output and the score's gradient, as maps.

    Tokens are put on their grid, without class tokens, and channels second. Nothing before the
    layer is differentiated, so parameters need no gradients. If a forward calls the layer several
    times, the last call counts.

    Args:
        layer: of the network.
        name: the layer's name in messages.
        network: called within the block, with gradients enabled; ``None`` for the layer itself.

    Raises:
        UserError: from the function: the layer was not called, returns no maps, or the score does
            not depend on them.

    Shape: ``(N, C, h, w)`` or ``(N, C, t, h, w)`` both

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> with layer_gradients(net[0], "0", network=net) as of_score:
        ...     activations, gradients = of_score(net(torch.zeros(2, 3, 8, 8))[:, 0].sum())
        >>> activations.shape, f"{gradients[0, 0].sum():.3f}", gradients[0, 1].sum().item()
        (torch.Size([2, 5, 6, 6]), '1.000', 0.0)
    """
    leaves: list[Tensor] = []
    outputs: list[Any] = []

    def keep(output: Any) -> Any:
        leaves.clear()
        tensor = first_tensor(output)
        outputs[:] = [(tensor, watched.seen())]
        if not isinstance(tensor, Tensor) or tensor.ndim not in (3, 4, 5):
            return output
        # Copies: later layers may work in place, on this memory or on the layer's own.
        leaves.append(tensor.detach().clone().requires_grad_())
        changed = leaves[0].clone()
        return changed if tensor is output else (changed, *output[1:])

    def of_score(score: Tensor) -> tuple[Tensor, Tensor]:
        if not outputs:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        output, seen = outputs[0]
        if not leaves:
            raise UserError(
                f"layer={name} returns {_kind(output)}, which is no map (N, C, h, w) of pictures"
                " or (N, C, t, h, w) of clips; take a layer before the pooling"
            )
        layout = seen.layout(output, name)
        gradients = None
        if score.requires_grad:
            gradients = torch.autograd.grad(score, leaves, allow_unused=True)[0]
        if gradients is None:
            raise UserError(f"the score does not depend on layer={name}; take another")
        return layout(leaves[0].detach()), layout(gradients)

    with watched_forward(network or layer) as watched, _hook(layer, keep):
        yield of_score


def _kind(output: object) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
