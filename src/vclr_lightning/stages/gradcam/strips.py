"""Heat maps over frames, as strips and films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.functional.grad_cam import overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.stages.gradcam.heat_maps import HeatMap

_GAP, _BLOCK_GAP = 3, 16  # pixels between pictures, and between groups of them
_SIDE, _HEAD, _TEXT = 132, 20, 12
_PAPER, _INK = (253, 253, 251), (29, 35, 39)


def video_strip(pictures: Tensor, order: Tensor, maps: Sequence[HeatMap]) -> NDArray[np.uint8]:
    """Draw the frames of one pass, as the networks were given them, above each network's heat.

    Args:
        pictures: ``(K, S, 3, H, W)`` uint8.
        order: of each tuple's frames, ``(tuples, S)``.
        maps: of each network.
    """
    tuples, passes = len(order), len(pictures)
    k = passes // (2 * tuples)
    places = [k, (k + passes // 2) % passes][:tuples]
    frames = torch.stack([pictures[p][some] for p, some in zip(places, order, strict=True)])
    rows = {"frames": frames}
    for one in maps:
        heat = torch.stack([some[row] for some, row in zip(one.heat[k], order, strict=True)])
        rows[f"{one.network}\n{one.summary}"] = overlay(frames, heat)
    return strip(rows, ["anchor", "positive"] if tuples == 2 else ["one frame of each segment"])


def video_film(pictures: Tensor, maps: Sequence[HeatMap]) -> NDArray[np.uint8]:
    """Set the frames of all passes, in order of time, beside each network's heat."""
    frames = _in_time(pictures)
    columns = {one.network: overlay(frames, _in_time(one.heat[:, 0])) for one in maps}
    return film({"frames": frames, **columns})


def _in_time(passes: Tensor) -> Tensor:
    """Passes ``(K, S, ...)`` to frames in order of time ``(S K, ...)``."""
    return passes.transpose(0, 1).flatten(0, 1)


def strip(rows: Mapping[str, Tensor], headings: Sequence[str]) -> NDArray[np.uint8]:
    """Draw rows of pictures below each other, with a caption beside each row.

    Args:
        rows: ``(groups, S, 3, H, W)`` uint8, by caption.
        headings: of the groups.

    Returns:
        A picture ``(H, W, 3)`` uint8.

    Example:
        >>> pictures = torch.zeros(2, 3, 3, 40, 40, dtype=torch.uint8)
        >>> strip({"frames": pictures}, ["anchor", "positive"]).shape
        (63, 403, 3)
    """
    groups, count, _, height, width = next(iter(rows.values())).shape
    group_width = count * (width + _GAP) - _GAP
    lefts = [_SIDE + g * (group_width + _BLOCK_GAP) for g in range(groups)]
    captions = {(left, 3): text for left, text in zip(lefts, headings, strict=True)}
    tops = [_HEAD + place * (height + _GAP) for place in range(len(rows))]
    for top, caption in zip(tops, rows, strict=True):
        captions[6, top + 2] = "\n".join(_wrapped(caption, _SIDE - 12))
    total = lefts[-1] + group_width + _GAP
    canvas = _canvas(_HEAD + len(rows) * (height + _GAP), total, captions)
    for top, pictures in zip(tops, rows.values(), strict=True):
        for left, group in zip(lefts, pictures, strict=True):
            for i, picture in enumerate(group):
                x = left + i * (width + _GAP)
                canvas[top : top + height, x : x + width] = picture.permute(1, 2, 0).numpy()
    return canvas


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
    count, _, height, width = next(iter(columns.values())).shape
    total = len(columns) * (width + _GAP) - _GAP
    lefts = [i * (width + _GAP) for i in range(len(columns))]
    names = {
        (x + 3, 3): _wrapped(name, width - 6)[0] for x, name in zip(lefts, columns, strict=True)
    }
    head = _canvas(_HEAD + height + (_HEAD + height) % 2, total + total % 2, names)
    frames = np.repeat(head[None], count, axis=0)
    for left, pictures in zip(lefts, columns.values(), strict=True):
        pixels = pictures.permute(0, 2, 3, 1).numpy()
        frames[:, _HEAD : _HEAD + height, left : left + width] = pixels
    return frames


def _canvas(height: int, width: int, texts: Mapping[tuple[int, int], str]) -> NDArray[np.uint8]:
    """Return paper with texts at some positions."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), _PAPER)
    for position, text in texts.items():
        ImageDraw.Draw(canvas).multiline_text(position, text, fill=_INK, font=_font())
    return np.array(canvas)


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_TEXT)


def _wrapped(text: str, width: int) -> list[str]:
    """Break lines of text that are wider than this many pixels, anywhere: paths have no spaces."""
    font, lines = _font(), [""]
    for letter in text:
        if letter == "\n" or (lines[-1] and font.getlength(lines[-1] + letter) > width):
            lines.append("")
        lines[-1] += letter.strip("\n")
    return lines
