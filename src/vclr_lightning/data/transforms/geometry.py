"""Boxes and sizes of fixed crops, and the resampling that all transforms use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vclr_lightning.data.transforms.augmentation import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Interpolation = Literal["bilinear", "bicubic", "nearest"]


def resized_crop(frame: NDArray[np.uint8], box: Box, height: int, width: int) -> Tensor:
    """Cut ``box`` out of one frame and resize it, ``(3, height, width)``; see below."""
    return resized_crops([frame], box, height, width)[0]


def resized_crops(
    clip: Sequence[NDArray[np.uint8]],
    box: Box,
    height: int,
    width: int,
    *,
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """Cut ``box`` out of every frame and resize it, by default bilinear with antialiasing.

    Equals PIL's ``crop`` and ``resize`` except for a few pixels off by 1; without ``antialias``,
    OpenCV's ``INTER_LINEAR`` likewise. ``"nearest"`` equals PIL's.

    Shape:
        - clip: ``T`` frames ``(H, W, 3)`` uint8, which may be read-only
        - result: ``(T, 3, height, width)`` uint8, stored pixel by pixel

    Example:
        >>> clip = [np.zeros((256, 340, 3), np.uint8)] * 2
        >>> resized_crops(clip, Box(0, 10, 200, 150), 224, 224).shape
        torch.Size([2, 3, 224, 224])
    """
    bottom, right = box.top + box.height, box.left + box.width
    # Copied, because torch refuses arrays that are read-only or stepped through backwards.
    cuts = np.empty((len(clip), box.height, box.width, 3), np.uint8)
    for cut, frame in zip(cuts, clip, strict=True):
        cut[:] = frame[box.top : bottom, box.left : right]
    nearest = interpolation == "nearest"
    # Channels last, as stored: torch takes half as long as on separate planes.
    return F.interpolate(
        torch.from_numpy(cuts.transpose(0, 3, 1, 2)),
        size=(height, width),
        mode="nearest-exact" if nearest else interpolation,
        align_corners=None if nearest else False,
        antialias=antialias and not nearest,
    )


def short_edge_size(height: int, width: int, short: int) -> tuple[int, int]:
    """Return height and width with the shorter edge ``short`` and the same aspect ratio.

    Example:
        >>> short_edge_size(240, 320, 256)
        (256, 341)
    """
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def center_box(height: int, width: int, size: int) -> Box:
    """Return the central square of ``size``, as torchvision's ``CenterCrop`` places it.

    Example:
        >>> center_box(256, 341, 224)
        Box(top=16, left=58, height=224, width=224)
    """
    return Box(round((height - size) / 2), round((width - size) / 2), size, size)
