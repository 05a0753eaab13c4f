"""The fixed crops of testing: one, three or ten views of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import center_box, resized_crop, short_edge_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CROPS = {"center": 1, "three": 3, "ten": 10}
"""Views of each way of cropping."""


def view_boxes(height: int, width: int, size: int, *, crops: str = "center") -> list[Box]:
    """Return where the squares of ``size`` lie that are cut out of a frame.

    ``"center"``: the middle. ``"three"``: both ends and the middle of the longer edge.
    ``"ten"``: the four corners and the middle, which are seen mirrored as well.

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
    """Resize, then cut out the views of testing; nothing is random.

    Args:
        size: height and width of the result in pixels.
        resize: length that the shorter edge of the frame is brought to, keeping its shape.
        crops: ``"center"``, ``"three"`` or ``"ten"``; see :func:`view_boxes`.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(k, 3, T, size, size)`` uint8, k of 1, 3 or 10.

    Raises:
        UserError: there is no such way of cropping, or ``size`` does not fit into ``resize``.

    Example:
        >>> import numpy as np
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> ViewsTransform(size=112, resize=128, crops="ten")([frame]).shape
        torch.Size([10, 3, 1, 112, 112])
    """

    size: int = 256
    resize: int = 256
    crops: str = "center"

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise UserError(f"crops={self.crops!r} is unknown; take {', '.join(CROPS)}")
        object.__setattr__(self, "size", checks.pixels("size", self.size))
        object.__setattr__(self, "resize", checks.pixels("resize", self.resize))
        if self.resize < self.size:
            raise UserError(
                f"resize={self.resize} is too small to cut size={self.size} out of; give a larger "
                "resize or a smaller size"
            )

    @property
    def num_views(self) -> int:
        """k, views of a frame."""
        return CROPS[self.crops]

    def __call__(self, clip: Sequence[NDArray[np.uint8]]) -> Tensor:
        frame_height, frame_width = checks.frame_size(clip)
        height, width = short_edge_size(frame_height, frame_width, self.resize)
        whole = Box(0, 0, frame_height, frame_width)
        pictures = torch.stack([resized_crop(f, whole, height, width) for f in clip], dim=1)
        views = [
            pictures[:, :, box.top : box.top + self.size, box.left : box.left + self.size]
            for box in view_boxes(height, width, self.size, crops=self.crops)
        ]
        if self.crops == "ten":
            views += [view.flip(-1) for view in views]
        return torch.stack(views)
