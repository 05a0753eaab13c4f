"""From stored pixels to what a network reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pixel_statistics(network: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel that a network wants.

    Those of ImageNet, where it has no ``pixel_mean`` and ``pixel_std`` of its own.

    Example:
        >>> pixel_statistics(torch.nn.Identity()) == (IMAGENET_MEAN, IMAGENET_STD)
        True
    """
    mean = tuple(getattr(network, "pixel_mean", IMAGENET_MEAN))
    return mean, tuple(getattr(network, "pixel_std", IMAGENET_STD))


def normalize(
    pixels: Tensor,
    mean: Tensor | Sequence[float] = IMAGENET_MEAN,
    std: Tensor | Sequence[float] = IMAGENET_STD,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Scale pixels from 0..255 to 0..1, subtract ``mean`` and divide by ``std`` of each channel.

    One conversion, then one multiplication and one addition in place. Half-precision results are
    computed in float32 and rounded once. ``mean`` and ``std`` given as tensors on the device of
    ``pixels`` save a transfer.

    Shape:
        - pixels: ``(..., C, T, H, W)`` uint8; the result is of the same shape
        - mean, std: ``(C,)``, as shares of 255

    Example:
        >>> white = torch.full((2, 3, 1, 4, 4), 255, dtype=torch.uint8)
        >>> normalize(white, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).unique()
        tensor([2.])
    """
    work = torch.promote_types(dtype, torch.float32)
    center = torch.as_tensor(mean, dtype=work, device=pixels.device)
    spread = torch.as_tensor(std, dtype=work, device=pixels.device)
    result = pixels.to(work)
    result.mul_((1 / (255 * spread)).view(-1, 1, 1, 1)).add_((-center / spread).view(-1, 1, 1, 1))
    return result.to(dtype)
