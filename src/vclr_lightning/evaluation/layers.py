"""The output of any layer of a network, by the layer's name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of this name, as in ``network.named_modules()``.

    The names of a network inside of a wrapper may begin with the wrapper's (``net``) or not.

    Raises:
        UserError: there is no such layer; the message has names like it.

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
    hint = f"near it are {', '.join(near)}" if near else f"it has {', '.join(_outer(layers))}"
    raise UserError(f"{type(network).__name__} has no layer {name!r}; {hint}")


@contextmanager
def reading(layer: nn.Module, name: str) -> Iterator[Callable[[], Tensor]]:
    """Yield a function that gives the features ``(N, F)`` that ``layer`` returned last.

    A map is averaged over its positions. Of a layer that is called several times in one forward
    (a ReLU that a block shares) the last call counts.

    Args:
        layer: of a network that is called within the block.
        name: what to call the layer in a message.

    Raises:
        UserError: from the function: the layer was not called, or returns neither features nor a
            map.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())
        >>> with reading(net[0], "0") as features:
        ...     _ = net(torch.zeros(2, 3, 8, 8))
        ...     features().shape
        torch.Size([2, 5])
    """
    outputs: list[Any] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[:] = [output]

    def features() -> Tensor:
        if not outputs:
            raise UserError(f"layer={name} is not used in the network's forward; take another")
        output = outputs[0]
        if not isinstance(output, Tensor) or output.ndim not in (2, 4, 5):
            got = f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"layer={name} returns {got}, which is neither features (N, F) nor a map "
                "(N, F, ...) of pictures or clips; take another layer"
            )
        return output if output.ndim == 2 else output.flatten(2).mean(dim=2)

    handle = layer.register_forward_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


def _outer(layers: dict[str, nn.Module]) -> list[str]:
    return [name for name in layers if "." not in name]
