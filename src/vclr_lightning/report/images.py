"""Pictures that travel inside a page."""

from __future__ import annotations

import base64
import io

from torch import Tensor


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
        >>> import torch
        >>> data_uri(torch.zeros(3, 8, 8, dtype=torch.uint8))[:23]
        'data:image/jpeg;base64,'
    """
    from PIL import Image

    file = io.BytesIO()
    pixels = picture.permute(1, 2, 0).contiguous().cpu().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
