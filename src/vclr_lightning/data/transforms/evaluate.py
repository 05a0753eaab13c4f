"""The fixed transform of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import center_box, resized_crop, short_edge_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resize, then cut out the middle; nothing is random.

    Args:
        size: height and width of the result in pixels.
        resize: length that the shorter edge of the frame is brought to, keeping its shape.
        stretch: height and width that the frame is brought to instead of ``resize``, whatever its
            shape; ``(256, 340)`` is what the authors' released code evaluates on.

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
        # Plain numbers and tuples, whatever a config gave: they travel to every worker.
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
        frame_height, frame_width = checks.frame_size(clip)
        height, width = self.stretch or short_edge_size(frame_height, frame_width, self.resize)
        whole = Box(0, 0, frame_height, frame_width)
        middle = center_box(height, width, self.size)
        rows = slice(middle.top, middle.top + self.size)
        columns = slice(middle.left, middle.left + self.size)
        return torch.stack(
            [resized_crop(frame, whole, height, width)[:, rows, columns] for frame in clip], dim=1
        )
