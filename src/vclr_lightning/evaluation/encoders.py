"""From a backbone to a function of stored frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vclr_lightning.evaluation.layers import find_layer, reading
from vclr_lightning.functional.pixels import normalize, pixel_statistics

Encode = Callable[[Tensor], Tensor]
"""``(M, C, T, H, W)`` uint8 frames or clips to features ``(M, F)``."""


def frame_encoder(
    backbone: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layer: str | None = None,
) -> Encode:
    """Return a function that gives a backbone's features, in evaluation mode without gradient.

    Args:
        backbone: a network with ``clip_dims``; see :class:`vclr_lightning.models.Backbone`.
        mean: of each channel, of values in 0 to 1; ``None`` for what the network wants.
        std: of each channel; likewise.
        layer: name of the layer whose output is wanted, averaged over positions where it is a
            map; ``None`` for the network's own features.

    Shape:
        The function takes ``(M, C, T, H, W)`` uint8 and returns ``(M, F)``.

    Raises:
        UserError: there is no such layer.

    Example:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> frame_encoder(net)(torch.zeros(4, 3, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 3])
    """
    chosen = None if layer is None else find_layer(backbone, layer)
    own_mean, own_std = pixel_statistics(backbone)
    center, spread = own_mean if mean is None else mean, own_std if std is None else std

    def encode(frames: Tensor) -> Tensor:
        dtype = next((p.dtype for p in backbone.parameters()), torch.float32)
        pixels = normalize(frames, center, spread, dtype=dtype)
        pixels = pixels if getattr(backbone, "clip_dims", 2) == 3 else pixels.squeeze(2)
        with evaluation_mode(backbone), torch.no_grad():
            if chosen is None or layer is None:
                features: Tensor = backbone(pixels)
                return features
            with reading(chosen, layer) as outputs:
                backbone(pixels)
                return outputs()

    return encode


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode; afterwards every layer is back in its own mode.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluation_mode(net):
        ...     net[0].training
        False
        >>> [layer.training for layer in net]
        [True, False]
    """
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training
