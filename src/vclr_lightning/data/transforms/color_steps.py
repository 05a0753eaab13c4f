"""Steps of an augmentation: flip, colours, greyscale, blur, solarisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks
from vclr_lightning.data.transforms.augmentation import ColorOp, sample_jitter
from vclr_lightning.data.transforms.blur import gaussian_blur, sampled_blur
from vclr_lightning.data.transforms.clip_steps import as_frames, as_planes, is_planes
from vclr_lightning.data.transforms.color import COLOR_OPS, contrast_around, luma

if TYPE_CHECKING:
    from vclr_lightning.data.transforms.clip_steps import Frames, Planes

Center = Literal["gray", "channels"]
Kind = Literal["luma", "channel"]


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirror a clip from left to right.

    Args:
        p: probability.

    Raises:
        UserError: ``p`` is out of its range.

    Example:
        >>> clip = np.arange(6, dtype=np.int16).reshape(1, 3, 1, 2)
        >>> Flip(p=1)(clip, np.random.default_rng(0)).tolist()
        [[[[1, 0]], [[3, 2]], [[5, 4]]]]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.number("p", self.p, 0, 1))

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes:
        if rng.random() >= self.p:
            return clip
        return clip[..., ::-1] if is_planes(clip) else [x[:, ::-1] for x in as_frames(clip)]


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Change brightness, contrast, saturation and hue, in random order.

    Args:
        brightness, contrast, saturation: factors are uniform in ``1 - value .. 1 + value``.
        hue: shifts are uniform in ``-hue .. hue`` turns, at most half a turn.
        p: probability of all four.
        per_frame: whether every frame has its own draw, also of whether there is one.
        center: what contrast mixes with: each frame's mean ``"gray"``, as torchvision does, or the
            mean of each of the ``"channels"`` over the clip, as CVRL does.
        blue_first: take blue for red and red for blue, as methods do that read frames with OpenCV.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> clip = np.full((2, 3, 1, 1), 100, np.int16)
        >>> darker = Jitter(brightness=0.5, contrast=0, saturation=0, hue=0, p=1)
        >>> a, b = darker(clip, np.random.default_rng(0))[:, 0, 0, 0].tolist()
        >>> a == b
        True
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    p: float = 0.8
    per_frame: bool = False
    center: Center = "gray"
    blue_first: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("brightness", "contrast", "saturation"):
            put(self, name, checks.number(name, getattr(self, name), 0, checks.STRONGEST))
        put(self, "hue", checks.number("hue", self.hue, 0, 0.5))
        put(self, "p", checks.number("p", self.p, 0, 1))
        if self.center not in get_args(Center):
            raise UserError(f"center={self.center!r} is unknown; take gray or channels")

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes:
        planes = as_planes(clip)
        channels = slice(None, None, -1) if self.blue_first else slice(None)
        parts = np.split(planes, len(planes)) if self.per_frame else [planes]
        changed = [self._jittered(part[:, channels], rng)[:, channels] for part in parts]
        return changed[0] if len(changed) == 1 else np.concatenate(changed)

    def _jittered(self, planes: Planes, rng: np.random.Generator) -> Planes:
        """Draw once for these frames."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        names: tuple[ColorOp, ...] = ("brightness", "contrast", "saturation", "hue")
        jitter = sample_jitter(rng, **dict(zip(names, strengths, strict=True)))
        if rng.random() >= self.p:
            return planes
        for op, amount in jitter:
            if op == "contrast" and self.center == "channels":
                planes = contrast_around(planes, planes.mean(axis=(0, 2, 3)), amount)
            else:
                planes = np.stack([COLOR_OPS[op](frame, amount) for frame in planes])
        return planes


@dataclass(frozen=True, kw_only=True)
class Gray:
    """Turn a clip grey.

    Args:
        p: probability.
        kind: ``"luma"``, or ``"channel"`` for one of red, green and blue, another one in each
            frame, as CoCLR, DPC and MemDPC do.
        per_frame: whether every frame has its own chance.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> clip = np.array([200, 100, 0], np.int16).reshape(1, 3, 1, 1)
        >>> Gray(p=1)(clip, np.random.default_rng(0)).ravel().tolist()
        [119, 119, 119]
    """

    p: float = 0.2
    kind: Kind = "luma"
    per_frame: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.number("p", self.p, 0, 1))
        if self.kind not in get_args(Kind):
            raise UserError(f"kind={self.kind!r} of Gray is unknown; take luma or channel")

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes:
        chances = rng.random(len(clip)) if self.per_frame else np.full(len(clip), rng.random())
        channels = rng.integers(3, size=len(clip))
        turned = chances < self.p
        if not turned.any():
            return clip
        planes = as_planes(clip).copy()
        for t in np.flatnonzero(turned):
            planes[t] = planes[t, channels[t]] if self.kind == "channel" else luma(planes[t])
        return planes


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Blur a clip with a Gaussian.

    Args:
        p: probability.
        sigma: smallest and largest standard deviation in pixels, uniform between them.
        radius: ``None``: as PIL blurs, where edges repeat; otherwise a sampled Gaussian of
            ``2 radius + 1`` taps, with black beyond the edges, as TensorFlow's code has it.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> clip = np.full((1, 3, 8, 8), 77, np.int16)
        >>> int(Blur(p=1)(clip, np.random.default_rng(0)).max())
        77
    """

    p: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    radius: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.number("p", self.p, 0, 1))
        object.__setattr__(self, "sigma", checks.pair("sigma", self.sigma, above=0, high=100))
        if self.radius is not None:
            object.__setattr__(self, "radius", checks.pixels("radius", self.radius))

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes:
        chance, share = rng.random(2).tolist()
        if chance >= self.p:
            return clip
        planes = as_planes(clip)
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * share
        frames = (np.ascontiguousarray(frame) for frame in planes)
        if self.radius is not None:
            return np.stack([sampled_blur(frame, sigma, radius=self.radius) for frame in frames])
        return np.stack([gaussian_blur(frame, sigma) for frame in frames])


@dataclass(frozen=True, kw_only=True)
class Solarize:
    """Invert every value from a threshold on.

    Args:
        p: probability.
        threshold: of 0..255.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> clip = np.array([127, 128, 255], np.int16).reshape(1, 3, 1, 1)
        >>> Solarize(p=1)(clip, np.random.default_rng(0)).ravel().tolist()
        [127, 127, 0]
    """

    p: float = 0.2
    threshold: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", checks.number("p", self.p, 0, 1))
        object.__setattr__(self, "threshold", checks.pixels("threshold", self.threshold, low=0))

    def __call__(self, clip: Frames | Planes, rng: np.random.Generator) -> Frames | Planes:
        if rng.random() >= self.p:
            return clip
        planes = as_planes(clip)
        return np.where(planes >= self.threshold, 255 - planes, planes)
