"""The augmentation of training with labels: random crop and flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Augmentation, Box
from vclr_lightning.data.transforms.crops import AreaCrop, Crop
from vclr_lightning.data.transforms.geometry import resized_crop, short_edge_size
from vclr_lightning.data.transforms.pretrain_transform import augment

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class FinetuneTransform:
    """Resize, random crop, horizontal flip: one draw for a whole clip (Appendix of the paper).

    Args:
        size: height and width of the result in pixels.
        resize: new length of the shorter edge of the frame before cropping; ``None``: the frame is
            cropped at its own size.
        crop: draws the part of the frame that becomes the picture.
        flip_p: chance of the flip; 0 where classes tell left from right.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> transform = FinetuneTransform(size=112, resize=128)
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> transform([frame, frame], np.random.default_rng(0)).shape
        torch.Size([3, 2, 112, 112])
    """

    size: int = 224
    resize: int | None = 256
    crop: Crop = field(default_factory=AreaCrop)
    flip_p: float = 0.5

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "size", checks.pixels("size", self.size))
        if self.resize is not None:
            put(self, "resize", checks.pixels("resize", self.resize))
        put(self, "flip_p", checks.number("flip_p", self.flip_p, 0, 1))

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        height, width = checks.frame_size(clip)
        if self.resize is not None and min(height, width) != self.resize:
            whole = Box(0, 0, height, width)
            height, width = short_edge_size(height, width, self.resize)
            clip = [
                resized_crop(frame, whole, height, width).permute(1, 2, 0).numpy() for frame in clip
            ]
        crop = self.crop(height, width, rng)
        flip = bool(rng.random() < self.flip_p)
        return augment(clip, Augmentation(crop, flip=flip), self.size)
