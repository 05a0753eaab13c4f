"""A sampler under other names, so that two of one kind can stand side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from vclr_lightning.core.types import Draw, ViewSpec

if TYPE_CHECKING:
    import numpy as np

    from vclr_lightning.data.protocols import Sampler

Value = TypeVar("Value")


@dataclass(frozen=True)
class Prefixed:
    """Draws with ``sampler``, and puts ``prefix`` before its views, rows, targets and sharing keys.

    Args:
        sampler: any.
        prefix: such as ``"b_"``.

    Example:
        >>> from vclr_lightning.data.sampling import SegmentSampler
        >>> list(Prefixed(SegmentSampler(num_segments=2), prefix="b_").views)
        ['b_segments']
    """

    sampler: Sampler
    prefix: str

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The sampler's views by their new names."""
        return {
            name: spec if spec.share is None else replace(spec, share=self.prefix + spec.share)
            for name, spec in self._named(self.sampler.views).items()
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """The sampler's targets by their new names."""
        return tuple(self.prefix + name for name in getattr(self.sampler, "targets", ()))

    @property
    def min_frames(self) -> int:
        """The sampler's."""
        return int(getattr(self.sampler, "min_frames", 1))

    @property
    def needs_times(self) -> bool:
        """The sampler's."""
        return bool(getattr(self.sampler, "needs_times", False))

    def __call__(self, num_frames: int, rng: np.random.Generator, **times: Any) -> Draw:
        """Draw as the sampler does."""
        drawn = self.sampler(num_frames, rng, **times)
        return Draw(
            frame_indices=self._named(drawn.frame_indices),
            rows=self._named(drawn.rows),
            targets=self._named(drawn.targets),
        )

    def _named(self, values: Mapping[str, Value]) -> dict[str, Value]:
        return {self.prefix + name: value for name, value in values.items()}
