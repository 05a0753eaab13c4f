"""The augmentation of pretraining with OpenCV, an optional dependency: the same operations, faster.

Images stay as decoded, ``(H, W, 3)`` uint8, until the end; OpenCV computes an operation in one pass
and saturates at 0 and 255. Torch resizes the crops here, too: OpenCV has no bilinear resampling
with antialiasing, and is no faster where images are enlarged.

Importing this file turns off OpenCV's own threads in the process: workers already load in
parallel, and such threads do not survive a fork.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms.augmentation import Augmentation, ColorOp
from vclr_lightning.data.transforms.blur import blur_taps
from vclr_lightning.data.transforms.color import hue_shift
from vclr_lightning.data.transforms.geometry import resized_crop

try:
    import cv2
except ImportError as error:
    raise UserError(
        f"OpenCV cannot be loaded ({error}); pip install 'vclr_lightning[opencv]', or augment with "
        "torch"
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

cv2.setNumThreads(0)

# PIL truncates, OpenCV rounds; just short of a half, so that integers stay.
_CUT = 1 / 128 - 0.5
_LUMA = (0.299, 0.587, 0.114)


def augment(clip: Sequence[Picture], augmentation: Augmentation, size: int) -> Tensor:
    """Do what :func:`vclr_lightning.data.transforms.augment` does, as close to PIL."""
    result = torch.empty(3, len(clip), size, size, dtype=torch.uint8)
    planes = result.numpy()
    for t, frame in enumerate(clip):
        picture = resized_crop(frame, augmentation.crop, size, size).permute(1, 2, 0).numpy()
        for op, amount in augmentation.jitter:
            picture = _COLOR_OPS[op](picture, amount)
        if augmentation.gray:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if augmentation.sigma:
            picture = gaussian_blur(picture, augmentation.sigma)
        if augmentation.flip:
            picture = cv2.flip(picture, 1)
        if augmentation.gray:
            planes[:, t] = picture
        else:
            cv2.split(picture, list(planes[:, t]))  # into these
    return result


def adjust_brightness(picture: Picture, factor: float) -> Picture:
    """Mix with black."""
    mixed: Picture = cv2.convertScaleAbs(picture, alpha=factor, beta=_CUT)
    return mixed


def adjust_contrast(picture: Picture, factor: float) -> Picture:
    """Mix with the mean grey."""
    mean = math.floor(np.dot(cv2.mean(picture)[:3], _LUMA) + 0.5)
    mixed: Picture = cv2.addWeighted(picture, factor, picture, 0, mean * (1 - factor) + _CUT)
    return mixed


def adjust_saturation(picture: Picture, factor: float) -> Picture:
    """Mix with the greyscale."""
    gray = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Picture = cv2.addWeighted(picture, factor, gray, 1 - factor, _CUT)
    return mixed


def adjust_hue(picture: Picture, turns: float) -> Picture:
    """Rotate the hue by a share of a full turn.

    The formula of :func:`vclr_lightning.data.transforms.color.adjust_hue`, in bytes that saturate
    at 0 and 255. Where a channel moves up, ``x + max(0, x + move - mid)`` is the same within
    ``lo..hi``; where it moves down, the image's negative, one exclusive or away, moves up.
    """
    steps, share = hue_shift(turns)
    planes = list(cv2.split(picture))
    red, green, blue = planes = planes[-steps:] + planes[:-steps] if steps else planes
    hi, lo = cv2.max(red, green), cv2.min(red, green)
    mid = cv2.max(lo, cv2.min(hi, blue))
    hi, lo = cv2.max(hi, blue), cv2.min(lo, blue)
    move = cv2.convertScaleAbs(cv2.subtract(hi, lo), alpha=abs(share))
    turned = []
    for plane, after, before in (red, green, blue), (green, blue, red), (blue, red, green):
        if share < 0:
            before, after = after, before
        down = cv2.compare(before, after, cv2.CMP_LE)  # 255 where it moves down, else 0
        x = plane ^ down
        x = cv2.add(x, cv2.subtract(cv2.add(x, move), mid ^ down))
        x ^= down
        turned.append(cv2.max(cv2.min(x, hi), lo))
    merged: Picture = cv2.merge(turned)
    return merged


def gaussian_blur(picture: Picture, sigma: float) -> Picture:
    """Blur ``(H, W, 3)`` or ``(H, W)`` uint8 as PIL does."""
    taps = blur_taps(sigma)
    if len(taps) == 1:
        return picture
    kernel = np.array([*reversed(taps[1:]), *taps], np.float32) / 256
    blurred: Picture = cv2.sepFilter2D(picture, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    return blurred


_COLOR_OPS: dict[ColorOp, Callable[[Picture, float], Picture]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
