"""The fixed transforms of evaluation and testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import (
    Interpolation,
    center_box,
    resized_crop,
    resized_crops,
    short_edge_size,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resize and crop the centre; nothing is random.

    Args:
        size: height and width of the result in pixels.
        resize: new length of the shorter edge of the frame, which keeps its aspect ratio.
        stretch: instead of ``resize``, height and width of the resized frame, whatever its aspect
            ratio; the authors' released code evaluates on ``(256, 340)``.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8.

    Raises:
        UserError: a value is out of its range, or the resized frame would be smaller than
            ``size``.

    Example:
        >>> transform = EvalTransform(size=112, resize=128)
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> transform([frame], np.random.default_rng(0)).shape
        torch.Size([3, 1, 112, 112])
    """

    size: int = 224
    resize: int = 256
    stretch: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Plain numbers and tuples, whatever the config had: they are sent to every worker.
        put = object.__setattr__
        put(self, "size", checks.pixels("size", self.size))
        put(self, "resize", checks.pixels("resize", self.resize))
        if self.stretch is None:
            smallest, name = self.resize, "resize"
        else:
            put(self, "stretch", checks.edges("stretch", self.stretch))
            smallest, name = min(self.stretch), "stretch"
        if smallest < self.size:
            raise UserError(
                f"{name}={getattr(self, name)} is too small to cut size={self.size} out of; "
                f"give a larger {name} or a smaller size"
            )

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        height, width = self.stretch or short_edge_size(*checks.frame_size(clip), self.resize)
        return _resized_views(clip, height, width, [center_box(height, width, self.size)])[0]


CROPS = {"center": 1, "three": 3, "ten": 10}
"""Number of views of each way of cropping."""


def view_boxes(height: int, width: int, size: int, *, crops: str = "center") -> list[Box]:
    """Return the squares of ``size`` that are cut out of a frame.

    ``"center"``: the centre. ``"three"``: both ends and the middle of the longer edge.
    ``"ten"``: the four corners and the centre, each of which is also mirrored.

    Example:
        >>> [(box.top, box.left) for box in view_boxes(256, 340, 256, crops="three")]
        [(0, 0), (0, 42), (0, 84)]
    """
    middle = center_box(height, width, size)
    if crops == "center":
        return [middle]
    down, right = height - size, width - size
    if crops == "three":
        wide = width >= height
        ends = (
            [(middle.top, 0), (middle.top, right)]
            if wide
            else [(0, middle.left), (down, middle.left)]
        )
        first, last = (Box(top, left, size, size) for top, left in ends)
        return [first, middle, last]
    corners = [Box(top, left, size, size) for top in (0, down) for left in (0, right)]
    return [*corners, middle]


@dataclass(frozen=True, kw_only=True)
class ViewsTransform:
    """Resize and cut out the views of testing; nothing is random.

    Args:
        size: height and width of the result in pixels.
        resize: new length of the shorter edge of the frame, which keeps its aspect ratio.
        crop: instead of ``resize``: squares of this many pixels are cut out of the frame as it is
            (of a smaller frame, the largest that it has), and resized.
        interpolation: of ``crop``: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.
        crops: ``"center"``, ``"three"`` or ``"ten"``; see :func:`view_boxes`.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(k, 3, T, size, size)`` uint8, k of 1, 3 or 10.

    Raises:
        UserError: there is no such way of cropping or interpolating, or ``size`` does not fit into
            ``resize``.

    Example:
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> ViewsTransform(size=112, resize=128, crops="ten")([frame]).shape
        torch.Size([10, 3, 1, 112, 112])
    """

    size: int = 256
    resize: int = 256
    crop: int | None = None
    interpolation: Interpolation = "bilinear"
    crops: str = "center"

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise UserError(f"crops={self.crops!r} is unknown; take {', '.join(CROPS)}")
        object.__setattr__(self, "size", checks.pixels("size", self.size))
        object.__setattr__(self, "resize", checks.pixels("resize", self.resize))
        if self.interpolation not in get_args(Interpolation):
            allowed = ", ".join(get_args(Interpolation))
            raise UserError(f"interpolation={self.interpolation!r} is unknown; take {allowed}")
        if self.crop is not None:
            object.__setattr__(self, "crop", checks.pixels("crop", self.crop))
        elif self.resize < self.size:
            raise UserError(
                f"resize={self.resize} is too small to cut size={self.size} out of; give a larger "
                "resize or a smaller size"
            )

    @property
    def num_views(self) -> int:
        """k, views of a frame."""
        return CROPS[self.crops]

    def __call__(self, clip: Sequence[NDArray[np.uint8]]) -> Tensor:
        height, width = checks.frame_size(clip)
        if self.crop is None:
            height, width = short_edge_size(height, width, self.resize)
            boxes = view_boxes(height, width, self.size, crops=self.crops)
            views = _resized_views(clip, height, width, boxes)
        else:
            side = min(self.crop, height, width)
            how: Any = {"interpolation": self.interpolation}
            cuts = [
                resized_crops(clip, box, self.size, self.size, **how).transpose(0, 1)
                for box in view_boxes(height, width, side, crops=self.crops)
            ]
            views = torch.stack(cuts)
        return torch.cat([views, views.flip(-1)]) if self.crops == "ten" else views


def _resized_views(
    clip: Sequence[NDArray[np.uint8]], height: int, width: int, boxes: list[Box]
) -> Tensor:
    """Resize frames to ``height`` x ``width`` and cut out the boxes, ``(k, 3, T, size, size)``."""
    whole = Box(0, 0, *clip[0].shape[:2])
    frames = torch.stack([resized_crop(frame, whole, height, width) for frame in clip], dim=1)
    return torch.stack(
        [frames[:, :, b.top : b.top + b.height, b.left : b.left + b.width] for b in boxes]
    )
