"""From uint8 pixels to a network's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pixel_statistics(network: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel that a network expects.

    These are its ``pixel_mean`` and ``pixel_std``, or ImageNet's where it has none.

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
    unit: bool = False,
) -> Tensor:
    """Scale pixels from 0..255 to 0..1, subtract ``mean`` and divide by ``std`` of each channel.

    One conversion, then one multiplication and one addition in place. Half-precision results are
    computed in float32 and rounded once. ``mean`` and ``std`` as tensors on the device of
    ``pixels`` save a transfer.

    Args:
        pixels: uint8; or, with ``unit``, floats.
        mean, std: of each channel, of values in 0 to 1.
        dtype: of the result.
        unit: ``pixels`` are floats from 0 to 1 already.

    Shape:
        - pixels: ``(..., C, T, H, W)``; the result is of the same shape
        - mean, std: ``(C,)``

    Raises:
        UserError: pixels are of another type, or floats beyond 0 to 1.

    Example:
        >>> white = torch.full((2, 3, 1, 4, 4), 255, dtype=torch.uint8)
        >>> normalize(white, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).unique()
        tensor([2.])
        >>> normalize(white / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), unit=True).unique()
        tensor([2.])
    """
    if pixels.dtype != torch.uint8 or unit:
        _check_unit(pixels, unit)
    work = torch.promote_types(dtype, torch.float32)
    center = torch.as_tensor(mean, dtype=work, device=pixels.device)
    spread = torch.as_tensor(std, dtype=work, device=pixels.device)
    result = pixels.to(work, copy=True)
    scale = 1 / ((1 if unit else 255) * spread)
    result.mul_(scale.view(-1, 1, 1, 1)).add_((-center / spread).view(-1, 1, 1, 1))
    return result.to(dtype)


def _check_unit(pixels: Tensor, unit: bool) -> None:
    if not (unit and pixels.is_floating_point()):
        raise UserError(
            f"pixels are {str(pixels.dtype).removeprefix('torch.')}; give uint8 from 0 to 255, or "
            "floats from 0 to 1 with unit=True"
        )
    low, high = (float(x) for x in pixels.aminmax()) if pixels.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise UserError(
            f"pixels are floats from {low:g} to {high:g}, not within 0 to 1; give them as uint8, "
            "or divide them by 255 first"
        )
