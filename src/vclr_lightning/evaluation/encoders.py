"""Functions from stored frames to features: of a backbone, and of baselines without learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from vclr_lightning.evaluation.layers import find_layer, layer_features
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
    """Return a function that computes a backbone's features in evaluation mode without gradient.

    Args:
        backbone: a network with ``clip_dims``; see :class:`vclr_lightning.models.Backbone`.
        mean: pixel mean of each channel, in 0 to 1; ``None`` for the network's.
        std: pixel standard deviation of each channel; likewise.
        layer: name of the layer whose output to return, averaged over positions if it is a map;
            ``None`` for the network's own features.

    Shape: The function takes ``(M, C, T, H, W)`` uint8 and returns ``(M, F)``.

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
            with layer_features(chosen, layer, network=backbone) as outputs:
                backbone(pixels)
                return outputs()

    return encode


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode, and restore each layer's own mode afterwards.

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


def mean_colour(frames: Tensor) -> Tensor:
    """Return the mean colour of each frame, ``(M, C, T, H, W)`` uint8 to ``(M, C)`` in 0 to 1.

    Example:
        >>> mean_colour(torch.full((2, 3, 1, 4, 4), 51, dtype=torch.uint8))[0].tolist()
        [0.20000000298023224, 0.20000000298023224, 0.20000000298023224]
    """
    return frames.float().mean(dim=(2, 3, 4)) / 255


def mean_frame(frames: Tensor, *, size: int = 16) -> Tensor:
    """Return each frame at ``size`` x ``size`` without its mean colour, ``(M, C size size)``."""
    small = adaptive_avg_pool2d(frames.float().mean(dim=2) / 255, size)  # (M, C, size, size)
    return (small - small.mean(dim=(2, 3), keepdim=True)).flatten(1)


def motion_map(frames: Tensor, *, size: int = 16) -> Tensor:
    """Return the change of grey values since the previous frame, ``(m, size * size)``.

    Takes all frames of one video, in order; the first one's map is zero.
    """
    grey = frames.float().mean(dim=(1, 2)) / 255  # (m, H, W)
    change = torch.zeros_like(grey)
    change[1:] = grey.diff(dim=0).abs()
    return adaptive_avg_pool2d(change[:, None], size).flatten(1)


motion_map.whole_videos = True  # type: ignore[attr-defined]  # needs each video's frames in order

TRIVIAL: Mapping[str, Encode] = {
    "mean colour": mean_colour,
    "mean frame": mean_frame,
    "mean motion map": motion_map,
}
"""Baselines without learning for :func:`~vclr_lightning.evaluation.features.extract_each`."""
