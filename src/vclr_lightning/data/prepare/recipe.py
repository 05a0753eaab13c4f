"""How videos are re-encoded."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.encoding import x264_options

_CRF_MOST = 51  # of H.264 with 8 bits
_SMALLEST = 16  # pixels; what no video is smaller than after it was scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a prepared video is like: H.264 without B-frames, keyframes at even distances.

    Attributes:
        short_edge: pixels to which the shorter side is reduced; smaller videos keep their size.
        keyframe_every: frames from one keyframe to the next; 1 for keyframes alone.
        crf: x264's quality, 0 (lossless) to 51 (worst).

    Raises:
        UserError: a value is out of its range.
    """

    short_edge: int = 256
    keyframe_every: int = 8
    crf: int = 18

    def __post_init__(self) -> None:
        if self.short_edge < _SMALLEST:
            raise UserError(f"a short edge of {self.short_edge} pixels is too small for a video")
        if self.keyframe_every < 1:
            raise UserError(f"a keyframe every {self.keyframe_every} frames: give 1 or more")
        if not 0 <= self.crf <= _CRF_MOST:
            raise UserError(f"crf {self.crf} must be 0 (lossless) to {_CRF_MOST}; 18 is usual")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result, both even.

        Args:
            width: pixels of the upright picture.
            height: likewise.

        Example:
            >>> Recipe().size(1280, 720), Recipe().size(176, 143)
            ((456, 256), (176, 142))
        """
        scale = self.short_edge / min(width, height)
        if scale >= 1:
            return _even_below(width), _even_below(height)
        return _even_near(width * scale), _even_near(height * scale)

    def enlarges_nothing(self, width: int, height: int) -> bool:
        """Whether a picture of this size is below the short edge and so keeps its size.

        Example:
            >>> Recipe().enlarges_nothing(320, 240), Recipe().enlarges_nothing(340, 256)
            (True, False)
        """
        return min(width, height) < self.short_edge

    def options(self) -> dict[str, str]:
        """Return the options of the encoder."""
        return x264_options(crf=self.crf, keyframe_every=self.keyframe_every)

    def as_dict(self) -> dict[str, int]:
        """Return the values by name."""
        return asdict(self)

    def describe(self) -> str:
        """Return the recipe in words.

        Example:
            >>> Recipe().describe()
            'short edge 256, a keyframe every 8 frames, crf 18'
        """
        every = "keyframes alone"
        if self.keyframe_every > 1:
            every = f"a keyframe every {self.keyframe_every} frames"
        return f"short edge {self.short_edge}, {every}, crf {self.crf}"


def _even_below(length: int) -> int:
    return max(2, length // 2 * 2)


def _even_near(length: float) -> int:
    return max(2, 2 * round(length / 2))
