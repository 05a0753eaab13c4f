"""Heat maps over pictures, in strips and films."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

# From cold to hot, evenly spaced; lightness rises all the way, so it also reads without colours.
_COLOURS = ((38, 20, 84), (120, 28, 109), (188, 55, 84), (237, 105, 37), (252, 255, 164))
_LUMA = (0.299, 0.587, 0.114)  # of red, green, blue
_OPACITY = 0.75  # where it is hottest
_GAP, _BLOCK_GAP = 3, 16  # pixels between pictures, and between groups of them
_SIDE, _HEAD, _TEXT = 132, 20, 12
_PAPER, _INK = (253, 253, 251), (29, 35, 39)


def colours(heat: Tensor) -> Tensor:
    """Return the colour of each value from 0 to 1.

    Shape:
        ``(..., H, W)`` to ``(..., 3, H, W)``, floats from 0 to 255

    Example:
        >>> colours(torch.tensor([[0.0, 1.0]]))[:, 0].T.tolist()
        [[38.0, 20.0, 84.0], [252.0, 255.0, 164.0]]
    """
    table = torch.tensor(_COLOURS, dtype=torch.float32)
    place = heat.float().cpu().clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table[below], table[below + 1], (place - below)[..., None]).movedim(-1, -3)


def overlay(pictures: Tensor, heat: Tensor) -> Tensor:
    """Lay heat over pictures without their colours, which would be taken for heat.

    Where the heat is 0 the grey picture is left.

    Shape:
        ``(..., 3, H, W)`` uint8 and ``(..., H, W)`` from 0 to 1; result ``(..., 3, H, W)`` uint8
    """
    opacity = _OPACITY * heat.float().cpu().clamp(0, 1)[..., None, :, :]
    grey = (pictures.float() * torch.tensor(_LUMA)[:, None, None]).sum(-3, keepdim=True)
    return torch.lerp(grey, colours(heat), opacity).round().to(torch.uint8)


@dataclass(frozen=True)
class StripRow:
    """Pictures side by side.

    Attributes:
        caption: what they are; lines of text.
        pictures: ``(groups, S, 3, H, W)`` uint8.
    """

    caption: Sequence[str]
    pictures: Tensor


def strip(rows: Sequence[StripRow], headings: Sequence[str]) -> NDArray[np.uint8]:
    """Draw rows of pictures below each other, with a caption beside each row.

    Args:
        rows: of as many pictures each.
        headings: of the groups.

    Returns:
        A picture ``(H, W, 3)`` uint8.

    Example:
        >>> pictures = torch.zeros(2, 3, 3, 40, 40, dtype=torch.uint8)
        >>> strip([StripRow(["frames"], pictures)], ["anchor", "positive"]).shape
        (63, 403, 3)
    """
    groups, count, _, height, width = rows[0].pictures.shape
    group_width = count * (width + _GAP) - _GAP
    lefts = [_SIDE + g * (group_width + _BLOCK_GAP) for g in range(groups)]
    canvas, draw = _blank(_HEAD + len(rows) * (height + _GAP), lefts[-1] + group_width + _GAP)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, 3), heading, fill=_INK, font=_font())
    for place, row in enumerate(rows):
        top = _HEAD + place * (height + _GAP)
        lines = [part for line in row.caption for part in _wrapped(line, _SIDE - 12)]
        draw.multiline_text((6, top + 2), "\n".join(lines), fill=_INK, font=_font())
        for left, group in zip(lefts, row.pictures, strict=True):
            for i, picture in enumerate(group):
                canvas.paste(_image(picture), (left + i * (width + _GAP), top))
    return np.asarray(canvas)


def film(columns: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    """Set the frames of some films side by side, each below its name.

    Args:
        columns: ``(M, 3, H, W)`` uint8, by name.

    Returns:
        ``(M, H, W, 3)`` uint8, of even height and width.

    Example:
        >>> film({"frames": torch.zeros(4, 3, 41, 41, dtype=torch.uint8)}).shape
        (4, 62, 42, 3)
    """
    first = next(iter(columns.values()))
    count, _, height, width = first.shape
    total = len(columns) * (width + _GAP) - _GAP
    head, draw = _blank(_HEAD + height + (_HEAD + height) % 2, total + total % 2)
    lefts = [i * (width + _GAP) for i in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left + 3, 3), _wrapped(name, width - 6)[0], fill=_INK, font=_font())
    frames = np.repeat(np.asarray(head)[None], count, axis=0)
    for left, pictures in zip(lefts, columns.values(), strict=True):
        pixels = pictures.permute(0, 2, 3, 1).numpy()
        frames[:, _HEAD : _HEAD + height, left : left + width] = pixels
    return frames


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture ``(H, W, 3)`` as the content of a PNG file.

    Example:
        >>> png(np.zeros((4, 4, 3), np.uint8))[1:4]
        b'PNG'
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _blank(height: int, width: int) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), _PAPER)
    return canvas, ImageDraw.Draw(canvas)


def _image(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_TEXT)


def _wrapped(text: str, width: int) -> list[str]:
    """Cut text into lines of at most so many pixels, anywhere: paths have no spaces."""
    font, lines = _font(), [""]
    for letter in text:
        if lines[-1] and font.getlength(lines[-1] + letter) > width:
            lines.append("")
        lines[-1] += letter
    return lines
