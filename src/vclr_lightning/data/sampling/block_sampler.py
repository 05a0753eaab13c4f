"""The sampler of successive blocks of a video, in temporal or in shuffled order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import check_clips, clip_indices, possible_starts
from vclr_lightning.functional.permutations import permutation_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shuffle = Literal["none", "all", "up_to_reversal"]

_MOST_SHUFFLED = 6  # 720 classes


@dataclass(frozen=True, kw_only=True)
class BlockSampler:
    """Draws successive clips of a video, which begins at a uniformly drawn frame.

    A step is ``stride`` frames, or ``1 / rate`` seconds. Frame t of block b is step
    ``b (frames_per_clip + gap) + t`` after the start.

    View: ``blocks``. Target, if they are shuffled: ``permutation``, the class of
    :func:`~.permutation_table` whose row says which block stands at each position.

    Args:
        blocks: n, at least 1.
        frames_per_clip: T, frames of a block.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``.
        gap: steps between the last frame of a block and the first one of the next, less one.
        spare: frames left at the video's end.
        shuffle: ``"none"``: temporal order; ``"all"``: any of the n! orders, all equally likely;
            ``"up_to_reversal"``: likewise, and an order and its reversal are one class.
        share: sharing key by which all blocks are augmented together; ``None``: each by itself.
        min_frames: shorter videos are left out. ``None``: those that are too short for a start (at
            a ``rate``, none). In shorter ones that are not left out, the last frame repeats.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> sampler = BlockSampler(blocks=2, frames_per_clip=3, stride=2, spare=0)
        >>> draw = sampler(12, np.random.default_rng(0))
        >>> draw.frame_indices["blocks"].tolist()
        [[1, 3, 5], [7, 9, 11]]
        >>> sampler.min_frames
        11
    """

    blocks: int = 8
    frames_per_clip: int = 5
    stride: int = 3
    rate: float | None = None
    gap: int = 0
    spare: int = 0
    shuffle: Shuffle = "none"
    share: str | None = "blocks"
    min_frames: int | None = None

    def __post_init__(self) -> None:
        check_clips(
            rate=self.rate,
            blocks=self.blocks,
            frames_per_clip=self.frames_per_clip,
            stride=self.stride,
        )
        if self.gap < 0 or self.spare < 0:
            raise UserError(f"gap={self.gap} and spare={self.spare} must be at least 0")
        if self.shuffle not in get_args(Shuffle):
            raise UserError(
                f"shuffle={self.shuffle!r} is unknown; take {', '.join(get_args(Shuffle))}"
            )
        if self.shuffle != "none" and not 2 <= self.blocks <= _MOST_SHUFFLED:
            raise UserError(
                f"blocks={self.blocks} cannot be shuffled; take 2 to {_MOST_SHUFFLED}, whose "
                "orders a classifier can predict"
            )
        if self.min_frames is None:
            fitting = 1 if self.rate is not None else int(self._steps[-1, -1]) * self.stride + 1
            object.__setattr__(self, "min_frames", fitting + self.spare)

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The one view."""
        spec = ViewSpec(clips=self.blocks, frames=self.frames_per_clip, share=self.share)
        return {"blocks": spec}

    @property
    def targets(self) -> tuple[str, ...]:
        """``permutation``, if blocks are shuffled."""
        return () if self.shuffle == "none" else ("permutation",)

    @property
    def needs_times(self) -> bool:
        """Whether times of presentation are needed: with ``rate``."""
        return self.rate is not None

    @property
    def _steps(self) -> NDArray[np.int64]:
        """Steps from the start, ``(n, T)``."""
        first = np.arange(self.blocks, dtype=np.int64) * (self.frames_per_clip + self.gap)
        steps: NDArray[np.int64] = first[:, None] + np.arange(self.frames_per_clip)
        return steps

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        steps = self._steps
        last = int(steps[-1, -1])
        at: dict[str, Any] = {"stride": self.stride, "rate": self.rate, "times": times}
        starts = possible_starts(num_frames - self.spare, steps=last, **at)
        start = rng.integers(starts, size=1)
        every = clip_indices(start, frames=last + 1, num_frames=num_frames, **at)[0]
        blocks = every[steps]
        if self.shuffle == "none":
            return Draw(frame_indices={"blocks": blocks})
        reversal = self.shuffle == "up_to_reversal"
        table = permutation_table(self.blocks, up_to_reversal=reversal)
        label = rng.integers(len(table))
        order = table[label][:: -1 if reversal and rng.integers(2) else 1]
        return Draw(
            frame_indices={"blocks": blocks[order]},
            targets={"permutation": np.asarray(label, dtype=np.int64)},
        )
