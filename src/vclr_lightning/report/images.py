"""Pictures that travel inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from torch import Tensor

GAP = 2


def side_by_side(pictures: Tensor | Sequence[Tensor], *, gap: int = GAP) -> Tensor:
    """Join pictures of one height from left to right, with a white gap between them.

    Shape:
        - pictures: n of ``(C, H, W)`` uint8
        - returns: ``(C, H, n W + (n - 1) gap)`` uint8

    Example:
        >>> side_by_side(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([3, 8, 28])
    """
    parts: list[Tensor] = []
    for picture in pictures:
        if parts:
            parts.append(picture.new_full((*picture.shape[:2], gap), 255))
        parts.append(picture)
    return torch.cat(parts, dim=2)


def middle_frames(clips: Tensor) -> Tensor:
    """Return the frame in the middle of each clip.

    Shape:
        ``(..., C, T, H, W)`` to ``(..., C, H, W)``
    """
    return clips.select(-3, clips.shape[-3] // 2)


def data_uri(picture: Tensor, *, quality: int = 90) -> str:
    """Return a picture as the ``src`` of an ``<img>``, compressed as JPEG.

    Shape:
        ``(3, H, W)`` uint8

    Example:
        >>> data_uri(torch.zeros(3, 8, 8, dtype=torch.uint8))[:23]
        'data:image/jpeg;base64,'
    """
    from PIL import Image

    file = io.BytesIO()
    pixels = picture.permute(1, 2, 0).contiguous().cpu().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
