"""The sampler of the tuples that video-level contrastive learning compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import (
    DrawRule,
    SegmentRule,
    check_clips,
    clip_indices,
    draw_two,
    draw_unused,
    segment_bounds,
)
from vclr_lightning.functional.order import sample_shuffle

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TupleSampler:
    """Draws an anchor tuple and a positive tuple of one video (Section 3 of the paper).

    The video is cut into ``num_segments`` segments. From each, one clip goes to the anchor tuple
    and another to the positive tuple; a clip begins at the drawn frame, continues at its stride or
    rate, also beyond the segment, and repeats the last frame at the video's end. Any video of at
    least one frame can be used.

    Views: ``anchor`` and ``positive`` (S clips in temporal order), ``second`` (the anchor frame x1
    again, for its second augmentation) and ``extra`` (with S < 3, those of the clips x2 and x3
    that the anchor tuple lacks, drawn from frames at which neither tuple begins, sorted).
    Rows: ``x1``, the first or the last clip of the anchor tuple with equal chance, and ``x2`` and
    ``x3``, in temporal order, positions in ``anchor`` followed by ``extra``. Targets:
    ``anchor_order`` and ``positive_order``, a permutation of each tuple, each with chance 1/2 a
    shuffle and otherwise the identity, and ``shuffled``: 0 (neither), 1 (anchor), 2 (positive) or
    3 (both). One segment has no order.

    Args:
        num_segments: S, at least 1.
        frames_per_clip: T, 1 for networks that see single pictures.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.
        draws: ``"without_replacement"``: the two draws of a segment differ wherever it has two
            frames; ``"independent"``: they may coincide.
        segments: ``"exact"``, or ``"floor"`` for the released code's segments of ``n // S`` frames
            (its stretching of every video to 300 frames beforehand is not copied).
        exclude_reversal: whether the exact reversal of three or more clips is no shuffle.

    Raises:
        UserError: a number below 1, or an unknown ``draws`` or ``segments``.

    Example:
        >>> sampler = TupleSampler(num_segments=3)
        >>> draw = sampler(300, np.random.default_rng(0))
        >>> draw.frame_indices["anchor"].shape, draw.frame_indices["extra"].shape
        ((3, 1), (0, 1))
        >>> sorted(draw.rows), sorted(draw.targets)
        (['x1', 'x2', 'x3'], ['anchor_order', 'positive_order', 'shuffled'])
    """

    num_segments: int = 3
    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None
    draws: DrawRule = "without_replacement"
    segments: SegmentRule = "exact"
    exclude_reversal: bool = True

    targets = ("anchor_order", "positive_order", "shuffled")

    def __post_init__(self) -> None:
        names = ("num_segments", "frames_per_clip", "stride")
        check_clips(rate=self.rate, **{name: getattr(self, name) for name in names})
        for name, rules in (("draws", DrawRule), ("segments", SegmentRule)):
            if getattr(self, name) not in get_args(rules):
                allowed = " or ".join(get_args(rules))
                raise UserError(f"{name}={getattr(self, name)!r} is unknown; take {allowed}")

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The views by name; ``extra`` has no clips from three segments on."""
        clips = {
            "anchor": self.num_segments,
            "positive": self.num_segments,
            "second": 1,
            "extra": max(0, 3 - self.num_segments),
        }
        return {name: ViewSpec(clips=n, frames=self.frames_per_clip) for name, n in clips.items()}

    @property
    def needs_times(self) -> bool:
        """Whether times of presentation are needed: with ``rate``."""
        return self.rate is not None

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw all views of a video of ``num_frames`` frames (at least 1)."""
        bounds = segment_bounds(num_frames, self.num_segments, rule=self.segments)
        anchor, positive = draw_two(bounds, rng, rule=self.draws)
        x1 = int(rng.integers(2)) * (self.num_segments - 1)
        missing = self.views["extra"].clips
        extra = draw_unused(num_frames, (anchor, positive), missing, rng) if missing else anchor[:0]
        starts = {
            "anchor": anchor,
            "positive": positive,
            "second": anchor[x1 : x1 + 1],
            "extra": extra,
        }
        others = _draw_others(anchor, extra, x1, rng)
        return Draw(
            frame_indices={
                name: clip_indices(
                    start,
                    frames=self.frames_per_clip,
                    num_frames=num_frames,
                    stride=self.stride,
                    rate=self.rate,
                    times=times,
                )
                for name, start in starts.items()
            },
            rows={
                "x1": np.array([x1], dtype=np.int64),
                "x2": others[:1],
                "x3": others[1:],
            },
            targets=self._draw_orders(rng),
        )

    def _draw_orders(self, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
        shuffled = rng.integers(2, size=2) if self.num_segments > 1 else np.zeros(2, np.int64)
        identity = np.arange(self.num_segments, dtype=np.int64)
        anchor, positive = (
            sample_shuffle(self.num_segments, rng, exclude_reversal=self.exclude_reversal)
            if coin
            else identity
            for coin in shuffled
        )
        label = np.asarray(shuffled[0] + 2 * shuffled[1], dtype=np.int64)
        return {"anchor_order": anchor, "positive_order": positive, "shuffled": label}


def _draw_others(
    anchor: NDArray[np.int64], extra: NDArray[np.int64], x1: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the positions of x2 and x3, in temporal order, in ``anchor`` followed by ``extra``."""
    rest = np.delete(np.arange(len(anchor), dtype=np.int64), x1)
    if len(extra) == 0:
        return np.sort(rng.choice(rest, 2, replace=False))
    # Fewer than three segments: all that is left of the tuple, and the extra clips.
    others = np.concatenate([rest, len(anchor) + np.arange(len(extra), dtype=np.int64)])
    return others[np.argsort(np.concatenate([anchor, extra])[others], kind="stable")]
