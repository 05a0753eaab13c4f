"""Augmentations put together from steps, for methods whose recipe is not MoCo v2's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard, cast, get_args

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import Interpolation, resized_crops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.transforms.crops import Crop

Frames: TypeAlias = "Sequence[NDArray[np.uint8]]"  # T of (H, W, 3)
Planes: TypeAlias = "NDArray[np.int16]"  # (T, 3, H, W) of 0..255


class Step(Protocol):
    """One operation on a clip, which is frames until a step works on colours, and planes then."""

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes: ...


def is_planes(clip: Frames | Planes) -> TypeGuard[Planes]:
    """Return whether a clip is planes, not frames."""
    return isinstance(clip, np.ndarray) and clip.dtype == np.int16


def as_planes(clip: Frames | Planes) -> Planes:
    """Return a clip as planes, in which colours are computed.

    Example:
        >>> as_planes([np.zeros((4, 6, 3), np.uint8)] * 2).shape
        (2, 3, 4, 6)
    """
    if is_planes(clip):
        return clip
    height, width, channels = clip[0].shape
    planes = np.empty((len(clip), channels, height, width), np.int16)
    for plane, frame in zip(planes, clip, strict=True):
        plane[:] = frame.transpose(2, 0, 1)
    return planes


def as_frames(clip: Frames | Planes) -> Frames:
    """Return a clip as frames, which are cut and resized.

    Example:
        >>> as_frames(np.zeros((2, 3, 4, 6), np.int16))[0].shape
        (4, 6, 3)
    """
    if is_planes(clip):
        return list(clip.transpose(0, 2, 3, 1).astype(np.uint8))
    return cast("Frames", clip)


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Apply steps to a clip, one after the other.

    A step draws once for the whole clip unless it says otherwise; of views with one sharing key it
    gets all frames at once. :class:`PretrainTransform` does MoCo v2's recipe faster.

    Args:
        size: height and width of the result in pixels.
        steps: the operations, in order; by name, so that a configuration can change one of them, or
            as a list. ``None`` in place of one leaves it out.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8.

    Raises:
        UserError: there is no step, or the last one leaves frames of another size.

    Example:
        >>> from vclr_lightning.data.transforms import AreaCrop, Compose, Flip, Gray, Resize
        >>> transform = Compose(size=64, steps=[Resize(size=64, crop=AreaCrop()), Flip(), Gray()])
        >>> frame = np.zeros((120, 160, 3), np.uint8)
        >>> transform([frame, frame], np.random.default_rng(0)).shape
        torch.Size([3, 2, 64, 64])
    """

    size: int
    steps: Mapping[str, Step | None] | Sequence[Step | None]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checks.pixels("size", self.size))
        steps = self.steps.values() if isinstance(self.steps, Mapping) else self.steps
        object.__setattr__(self, "steps", tuple(step for step in steps if step is not None))
        if not self.steps:
            raise UserError("steps of Compose is empty; give at least a Resize")

    def __call__(self, clip: Frames, rng: np.random.Generator) -> Tensor:
        checks.frame_size(clip)
        changed: Frames | Planes = clip
        for step in cast("tuple[Step, ...]", self.steps):
            changed = step(changed, rng)
        planes = as_planes(changed)
        height, width = planes.shape[2:]
        if (height, width) != (self.size, self.size):
            raise UserError(
                f"the steps of Compose leave frames of {height} x {width} pixels, but size="
                f"{self.size}; resize to that"
            )
        result = np.empty((3, len(planes), height, width), np.uint8)
        np.copyto(result.transpose(1, 0, 2, 3), planes, casting="unsafe")
        return torch.from_numpy(result)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Cut a box out of all frames and resize it.

    Args:
        size: height and width of the result, or one number for both; the aspect ratio is not kept.
        crop: draws the box; ``None``: the whole frame.
        interpolation: ``"bilinear"`` or ``"bicubic"``, as PIL does, or ``"nearest"``.
        antialias: whether reducing averages over what is reduced, as PIL does and OpenCV does not.
        shake: pixels of the frame, at most, by which each frame's box is moved at random along
            either axis, unless it would leave the frame.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> frames = [np.zeros((240, 320, 3), np.uint8)]
        >>> Resize(size=(128, 171))(frames, np.random.default_rng(0))[0].shape
        (128, 171, 3)
    """

    size: int | tuple[int, int]
    crop: Crop | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    shake: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shake", checks.pixels("shake", self.shake, low=0))
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        object.__setattr__(self, "size", checks.edges("size", size))
        if self.interpolation not in get_args(Interpolation):
            allowed = ", ".join(get_args(Interpolation))
            raise UserError(f"interpolation={self.interpolation!r} is unknown; take {allowed}")

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames:
        frames = as_frames(clip)
        box = Box(0, 0, *frames[0].shape[:2])
        if self.crop is not None:
            box = self.crop(box.height, box.width, rng)
        height, width = cast("tuple[int, int]", self.size)
        resize = partial(resized_crops, interpolation=self.interpolation, antialias=self.antialias)
        if not self.shake:
            resized = resize(frames, box, height, width)
        else:
            boxes = _shaken(box, self.shake, frames, rng)
            each = zip(frames, boxes, strict=True)
            resized = torch.cat([resize([frame], moved, height, width) for frame, moved in each])
        return list(resized.permute(0, 2, 3, 1).numpy())


def _shaken(box: Box, shake: int, frames: Frames, rng: np.random.Generator) -> list[Box]:
    height, width = frames[0].shape[:2]
    moves = rng.integers(-shake, shake + 1, size=(len(frames), 2))
    tops, lefts = box.top + moves[:, 0], box.left + moves[:, 1]
    tops = np.where((tops >= 0) & (tops + box.height <= height), tops, box.top)
    lefts = np.where((lefts >= 0) & (lefts + box.width <= width), lefts, box.left)
    places = zip(tops.tolist(), lefts.tolist(), strict=True)
    return [Box(top, left, box.height, box.width) for top, left in places]
