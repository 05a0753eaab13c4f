"""The augmentation of two clips together, of which one may take the place of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import checks

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import ClipTransform
    from vclr_lightning.data.transforms.clip_steps import Frames


@dataclass(frozen=True, kw_only=True)
class PairTransform:
    """Augment two clips together: the pairs of CoCLR's first stage.

    With chance ``one_clip_p`` one of the two clips, by a fair coin, takes the place of both; then
    one of the two views, by another coin, is augmented by ``strong`` and the other by ``weak``.
    Otherwise each view is strong with chance ``strong_p`` by itself. Give the views of the two
    clips one sharing key.

    Args:
        strong: the transform of, in CoCLR's words, a base view.
        weak: the transform of a null view, of the same size.
        one_clip_p: see above.
        strong_p: see above.

    Shape:
        ``2 T`` frames ``(H, W, 3)`` uint8, of one clip and then the other, to
        ``(3, 2 T, size, size)`` uint8.

    Raises:
        UserError: a chance is out of its range, the sizes differ, or the number of frames is odd.

    Example:
        >>> from vclr_lightning.data.transforms import Blur, Compose, Resize
        >>> weak, blur = Resize(size=32), Blur(p=1, sigma=(1, 2))
        >>> pair = PairTransform(
        ...     strong=Compose(size=32, steps=[weak, blur]), weak=Compose(size=32, steps=[weak])
        ... )
        >>> pair([np.zeros((48, 64, 3), np.uint8)] * 8, np.random.default_rng(0)).shape
        torch.Size([3, 8, 32, 32])
    """

    strong: ClipTransform
    weak: ClipTransform
    one_clip_p: float = 0.5
    strong_p: float = 0.3

    def __post_init__(self) -> None:
        for name in ("one_clip_p", "strong_p"):
            object.__setattr__(self, name, checks.number(name, getattr(self, name), 0, 1))
        if self.strong.size != self.weak.size:
            raise UserError(
                f"strong and weak of PairTransform have sizes {self.strong.size} and "
                f"{self.weak.size}; give both the same"
            )

    @property
    def size(self) -> int:
        """Height and width of the result in pixels."""
        return self.strong.size

    def sample(self, rng: np.random.Generator) -> tuple[tuple[int, bool], tuple[int, bool]]:
        """Draw which of the two clips each view takes, and whether it is strong."""
        one, which, side, first, second = rng.random(5).tolist()
        if one < self.one_clip_p:
            clip, strong = int(which < 1 / 2), side < 1 / 2
            return (clip, strong), (clip, not strong)
        return (0, first < self.strong_p), (1, second < self.strong_p)

    def __call__(self, clip: Frames, rng: np.random.Generator) -> Tensor:
        length, odd = divmod(len(clip), 2)
        if odd:
            raise UserError(
                f"PairTransform needs two clips of one length, but there are {len(clip)} frames; "
                "give the views of two clips one sharing key"
            )
        views = []
        for which, strong in self.sample(rng):
            frames = clip[which * length : (which + 1) * length]
            views.append((self.strong if strong else self.weak)(frames, rng))
        return torch.cat(views, dim=1)
