"""Space-time puzzles: pieces of a video in a shuffled order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import resized_crops
from vclr_lightning.functional.permutations import permutation_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

Axis = Literal["both", "space", "time"]

_PIECES = 4
_GRID = 2  # cells per side


@dataclass(frozen=True, kw_only=True)
class PuzzleTransform:
    """Cuts four pieces out of a video's square region and shuffles them.

    Kim, Cho and Kweon, "Self-supervised video representation learning with space-time cubic
    puzzles", AAAI 2019. The region consists of 2 x 2 cells, and the clip of four blocks of frames.
    By a fair coin, the pieces are one cell in all blocks (time), or all cells of one block (space).
    Each is cut at a random place of its cell, and may be one of its colour channels alone, so that
    neither edges nor lenses betray where it was. The target is the class of
    :func:`~.permutation_table` whose row says which piece stands at each position; cells count row
    by row.

    Give the four clips of a view one sharing key, as ``BlockSampler(blocks=4)`` does.

    Args:
        size: height and width of a piece in the result, in pixels.
        region: height and width of the region in pixels of the frame; less in a smaller frame.
        piece: share of a cell's height and width that a piece covers.
        axis: ``"both"``, ``"space"`` or ``"time"``.
        flip_p: probability of the horizontal flip, of the whole region.
        channel_p: probability that one of red, green and blue replaces all three, of each piece.

    Shape:
        ``4 T`` frames ``(H, W, 3)`` uint8, block by block, to ``(3, 4 T, size, size)`` uint8, piece
        by piece, and ``{"permutation": ()}``.

    Raises:
        UserError: a value is out of its range, or the frames are not four blocks.

    Example:
        >>> puzzle = PuzzleTransform(size=40, region=112)
        >>> frames = [np.zeros((120, 160, 3), np.uint8)] * 8
        >>> pieces, targets = puzzle(frames, np.random.default_rng(0))
        >>> pieces.shape, bool(0 <= targets["permutation"] < 24)
        (torch.Size([3, 8, 40, 40]), True)
    """

    size: int = 80
    region: int = 224
    piece: float = 80 / 112
    axis: Axis = "both"
    flip_p: float = 0.5
    channel_p: float = 0.5

    targets = ("permutation",)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "size", checks.pixels("size", self.size))
        put(self, "region", checks.pixels("region", self.region, low=_GRID))
        put(self, "piece", checks.number("piece", self.piece, 0.05, 1))
        for name in ("flip_p", "channel_p"):
            put(self, name, checks.number(name, getattr(self, name), 0, 1))
        if self.axis not in get_args(Axis):
            raise UserError(f"axis={self.axis!r} is unknown; take {', '.join(get_args(Axis))}")

    def __call__(
        self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        height, width = checks.frame_size(clip)
        length, left = divmod(len(clip), _PIECES)
        if left:
            raise UserError(
                f"a puzzle needs {_PIECES} blocks of one length, but gets {len(clip)} frames; give "
                f"the view {_PIECES} clips and one sharing key"
            )
        side = min(self.region, height, width)
        down, right, coin, flip = rng.random(4).tolist()
        top, edge = int(down * (height - side + 1)), int(right * (width - side + 1))
        in_time = self.axis == "time" or (self.axis == "both" and coin < 1 / 2)
        fixed = int(rng.integers(_PIECES))
        table = permutation_table(_PIECES)
        label = int(rng.integers(len(table)))
        cell = max(1, side // _GRID)
        cut = max(1, round(self.piece * cell))
        pieces = []
        for number in range(_PIECES):
            block, place = (number, fixed) if in_time else (fixed, number)
            row, column = divmod(place, _GRID)
            down, right = rng.random(2).tolist()
            box = Box(
                top + row * cell + int(down * (cell - cut + 1)),
                edge + column * cell + int(right * (cell - cut + 1)),
                cut,
                cut,
            )
            frames = clip[block * length : (block + 1) * length]
            pixels = resized_crops(frames, box, self.size, self.size)  # (T, 3, size, size)
            replaced, channel = rng.random() < self.channel_p, int(rng.integers(3))
            pieces.append(pixels[:, [channel] * 3] if replaced else pixels)
        if flip < self.flip_p:
            # Mirrors the region: left and right cells change places.
            pieces = [piece.flip(3) for piece in pieces]
            pieces = pieces if in_time else [pieces[number ^ 1] for number in range(_PIECES)]
        shuffled = torch.cat([pieces[number] for number in table[label]])
        return shuffled.transpose(0, 1).contiguous(), {"permutation": np.int64(label)}
