"""Pictures of a result as plain images, for whatever shows no page."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.results.visuals import Picture, PictureGroup

_BORDER, _GAP, _LINE, _TEXT = 3, 6, 16, 12  # pixels
_PAPER, _INK = (253, 253, 251), (29, 35, 39)
_RIGHT, _WRONG = (26, 127, 75), (184, 58, 58)


def picture_of(group: PictureGroup) -> Any:
    """Draw the rows of a group below each other; ``None`` where it has no picture.

    A label that is text stands above its row, a badge on its picture. A picture that is marked as
    right or wrong has a green or a red border, an outlined one a dark one.

    Returns:
        ``(H, W, 3)`` uint8.

    Example:
        >>> one = Picture(frames=torch.zeros(2, 3, 8, 8, dtype=torch.uint8), correct=True)
        >>> picture_of(PictureGroup(rows=[(one, [one])])).shape
        (14, 50, 3)
    """
    rows = []
    for label, pictures in group.rows:
        shown = [one for one in (label, *pictures) if isinstance(one, Picture)]
        parts = [_bordered(one) for one in shown if one.frames is not None]
        if parts:
            row = _beside(parts)
            if isinstance(label, str) and label:
                row = torch.cat([_written(_paper(_LINE, row.shape[2]), label), row], dim=1)
            rows.append(row)
    if not rows:
        return None
    width = max(row.shape[2] for row in rows)
    wide = [_padded(row, row.shape[1], width) for row in rows]
    below = [part for row in wide for part in (_paper(_GAP, width), row)][1:]
    return torch.cat(below, dim=1).permute(1, 2, 0).contiguous().numpy()


def _bordered(picture: Picture) -> Tensor:
    """The frames of a picture side by side, ``(3, H, n W)``, in its border."""
    frames = picture.frames
    assert frames is not None
    frames = frames.cpu()
    if frames.ndim == 4:
        frames = frames.permute(1, 2, 0, 3).flatten(2)
    if picture.badge:
        frames = _written(frames, picture.badge, on=_PAPER)
    if picture.correct is None and not picture.outlined:
        return frames
    height, width = frames.shape[1:]
    colours = {None: _INK, True: _RIGHT, False: _WRONG}
    border = torch.tensor(colours[picture.correct], dtype=torch.uint8)
    canvas = border[:, None, None].repeat(1, height + 2 * _BORDER, width + 2 * _BORDER)
    canvas[:, _BORDER : _BORDER + height, _BORDER : _BORDER + width] = frames
    return canvas


def _beside(parts: list[Tensor]) -> Tensor:
    height = max(part.shape[1] for part in parts)
    tall = [_padded(part, height, part.shape[2]) for part in parts]
    return torch.cat([p for part in tall for p in (_paper(height, _GAP), part)][1:], dim=2)


def _padded(picture: Tensor, height: int, width: int) -> Tensor:
    canvas = _paper(height, width)
    canvas[:, : picture.shape[1], : picture.shape[2]] = picture
    return canvas


def _paper(height: int, width: int) -> Tensor:
    return torch.tensor(_PAPER, dtype=torch.uint8)[:, None, None].repeat(1, height, width)


def _written(canvas: Tensor, text: str, *, on: tuple[int, int, int] | None = None) -> Tensor:
    """Write into the upper left corner, on a rectangle of a colour."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(canvas.permute(1, 2, 0).contiguous().numpy())
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_TEXT)
    if on is not None:
        draw.rectangle((0, 0, font.getlength(text) + 4, _LINE - 2), fill=on)
    draw.text((2, 1), text, fill=_INK, font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
