"""The augmentation of pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import Augmentation, sample_crop, sample_jitter
from vclr_lightning.data.transforms.backends import Backend, check_backend, load_opencv
from vclr_lightning.data.transforms.batched import augment_batch, columns, pack
from vclr_lightning.data.transforms.blur import gaussian_blur
from vclr_lightning.data.transforms.color import COLOR_OPS, luma
from vclr_lightning.data.transforms.geometry import resized_crop, resized_crops

if TYPE_CHECKING:
    from numpy.typing import NDArray


def augment(clip: Sequence[NDArray[np.uint8]], augmentation: Augmentation, size: int) -> Tensor:
    """Apply the same parameters to every frame of a clip.

    In this order: crop and resize, flip, colour operations, greyscale, blur.

    Shape:
        - clip: ``T`` frames ``(H, W, 3)`` uint8; result ``(3, T, size, size)`` uint8

    Example:
        >>> from vclr_lightning.data.transforms import Box
        >>> frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        >>> augment([frame], Augmentation(Box(0, 0, 2, 2), flip=True), 2)[0, 0].tolist()
        [[3, 0], [9, 6]]
    """
    result = torch.empty(3, len(clip), size, size, dtype=torch.uint8)
    pixels = result.numpy()
    for t, frame in enumerate(clip):
        picture = resized_crop(frame, augmentation.crop, size, size).numpy()
        if augmentation.flip:
            picture = picture[:, :, ::-1]
        np.copyto(pixels[:, t], _recolor(picture, augmentation), casting="unsafe")
    return result


def _recolor(
    picture: NDArray[np.uint8], augmentation: Augmentation
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Apply everything after the geometry; greyscale leaves one plane, ``(1, H, W)``."""
    if not (augmentation.jitter or augmentation.gray or augmentation.sigma):
        return picture
    planes = picture.astype(np.int16, order="C")
    for op, amount in augmentation.jitter:
        planes = COLOR_OPS[op](planes, amount)
    if augmentation.gray:
        planes = luma(planes)[np.newaxis]
    if augmentation.sigma:
        planes = gaussian_blur(planes, augmentation.sigma)
    return planes


@dataclass(frozen=True, kw_only=True)
class PretrainTransform:
    """Random resized crop, colour jitter, greyscale, blur and flip, one draw for a whole clip.

    The defaults are the recipe of MoCo v2 that the paper uses (Section 4.2). Parameters have the
    distribution of torchvision's transforms; pixels agree with PIL to 1/255 on average, 2/255 if
    blurred. A probability of 0 turns an operation off, at no cost.

    Args:
        size: height and width of the result in pixels.
        scale: smallest and largest share of the frame's area that a crop covers.
        ratio: smallest and largest width / height of a crop.
        brightness, contrast, saturation: factors are uniform in ``1 - value .. 1 + value``.
        hue: shifts are uniform in ``-hue .. hue`` turns, at most half a turn.
        jitter_p: probability of the four colour operations, in random order.
        gray_p: probability of greyscale.
        blur_p: probability of the blur.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels of the result.
        flip_p: probability of the horizontal flip.
        backend: ``"torch"`` (and NumPy), or ``"opencv"``, an optional dependency. Both draw the
            same parameters, and their pixels agree within the bounds above.

    Shape:
        ``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8.

    Raises:
        UserError: a value is out of its range, or OpenCV is not installed.

    Example:
        >>> transform = PretrainTransform(size=112)
        >>> frame = np.zeros((256, 340, 3), np.uint8)
        >>> transform([frame, frame], np.random.default_rng(0)).shape
        torch.Size([3, 2, 112, 112])
    """

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_p: float = 0.5
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        # Plain numbers and tuples, whatever the config had: they are sent to every worker.
        put = object.__setattr__
        put(self, "size", checks.pixels("size", self.size))
        put(self, "scale", checks.pair("scale", self.scale, above=0, high=1))
        put(self, "ratio", checks.pair("ratio", self.ratio, above=0, high=float("inf")))
        put(self, "blur_sigma", checks.pair("blur_sigma", self.blur_sigma, above=0, high=100))
        for name in ("brightness", "contrast", "saturation"):
            put(self, name, checks.number(name, getattr(self, name), 0, checks.STRONGEST))
        put(self, "hue", checks.number("hue", self.hue, 0, 0.5))
        for name in ("jitter_p", "gray_p", "blur_p", "flip_p"):
            put(self, name, checks.number(name, getattr(self, name), 0, 1))
        check_backend(self.backend)

    def sample(self, height: int, width: int, rng: np.random.Generator) -> Augmentation:
        """Draw the parameters for frames of this size."""
        crop = sample_crop(height, width, rng, scale=self.scale, ratio=self.ratio)
        jitter = sample_jitter(
            rng,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
        )
        jittered, gray, blurred, strength, flipped = rng.random(5).tolist()
        low, high = self.blur_sigma
        return Augmentation(
            crop=crop,
            jitter=jitter if jittered < self.jitter_p else (),
            gray=gray < self.gray_p,
            sigma=low + (high - low) * strength if blurred < self.blur_p else 0.0,
            flip=flipped < self.flip_p,
        )

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        height, width = checks.frame_size(clip)
        drawn = self.sample(height, width, rng)
        if self.backend == "torch":
            return augment(clip, drawn, self.size)
        return cast(Tensor, load_opencv().augment(clip, drawn, self.size))

    def begin(
        self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.int32]]:
        """Crop and resize only; return the other parameters for :meth:`finish`.

        The parameters drawn are those of :meth:`__call__`.

        Shape:
            ``T`` frames ``(H, W, 3)`` uint8 to ``(T, size, size, 3)`` uint8 and ``(P,)`` int32.
        """
        height, width = checks.frame_size(clip)
        drawn = self.sample(height, width, rng)
        crops = resized_crops(clip, drawn.crop, self.size, self.size)
        parameters = pack(drawn, columns(self.blur_sigma[1]))
        return crops.permute(0, 2, 3, 1), parameters

    def finish(self, clips: Tensor, parameters: Tensor) -> Tensor:
        """Do the rest for many clips at once, on their device.

        The result equals that of :meth:`__call__` with the backend ``"torch"``.

        Shape:
            - clips: ``(N, T, size, size, 3)`` uint8
            - parameters: ``(N, P)`` int32, on the host
            - result: ``(N, 3, T, size, size)`` uint8
        """
        return augment_batch(clips.permute(0, 4, 1, 2, 3), parameters)
