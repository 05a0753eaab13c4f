"""Which views are read, and which sampler draws each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import Key, numpy_generator
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.faults import blaming

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vclr_lightning.data.protocols import Sampler


class ViewPlan:
    """Draws the needed views of a video with one or more samplers.

    Every sampler always draws all its views, with its own random numbers, so a draw depends neither
    on which views are needed nor on later samplers. A view that two samplers yield comes from the
    first; a sampler that equals an earlier one is skipped.

    Args:
        samplers: at least one.
        needed: names of the views to read; ``None`` for all.

    Attributes:
        specs: the views that are read, in the order of the samplers, without views of 0 clips.

    Raises:
        UserError: there is no sampler; two samplers disagree on a view, or use the same name for
            rows or orders; no sampler yields a needed view; a sampler's draw does not have the
            shape that it declares.

    Example:
        >>> from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
        >>> plan = ViewPlan([TupleSampler(num_segments=3)], ["anchor", "extra"])
        >>> dict(plan.specs)
        {'anchor': ViewSpec(clips=3, frames=1, stride=1)}
        >>> sorted(plan.draw(300, 0).frame_indices)
        ['anchor']
    """

    def __init__(self, samplers: Sequence[Sampler], needed: Iterable[str] | None = None) -> None:
        if not samplers:
            raise UserError("samplers is empty; give at least one, such as TupleSampler()")
        self._samplers: list[Sampler] = []
        self._shapes: list[dict[str, tuple[int, ...]]] = []
        specs: dict[str, ViewSpec] = {}
        owners: dict[tuple[str, str], str] = {}
        for sampler in samplers:
            if sampler not in self._samplers:
                self._samplers.append(sampler)
                self._add(sampler, specs, owners)
        names = set(specs) if needed is None else set(needed)
        if missing := sorted(names - set(specs)):
            raise UserError(
                f"no sampler yields the view {', '.join(missing)}; "
                f"the samplers yield {', '.join(sorted(specs))}"
            )
        self.specs = {name: spec for name, spec in specs.items() if name in names and spec.clips}

    def _add(
        self, sampler: Sampler, specs: dict[str, ViewSpec], owners: dict[tuple[str, str], str]
    ) -> None:
        """Check a sampler against itself and earlier ones."""
        name = type(sampler).__name__
        with blaming(sampler):
            drawn = sampler(64, numpy_generator(0))
            self._shapes.append(_shapes(drawn))
        for view, spec in sampler.views.items():
            owner = owners.setdefault(("views", view), name)
            if specs.setdefault(view, spec) != spec:
                raise UserError(
                    f"{owner} yields the view {view} as {specs[view]} and {name} as {spec}; "
                    "rename one, or make them equal"
                )
            shape = drawn.frame_indices[view].shape if view in drawn.frame_indices else None
            if shape != (spec.clips, spec.frames):
                raise UserError(
                    f"{name} declares the view {view} of shape {(spec.clips, spec.frames)}, "
                    f"but draws {shape}; make its views and its draw agree"
                )
        for kind, key in [*(("rows", x) for x in drawn.rows), *(("order", x) for x in drawn.order)]:
            if (kind, key) in owners:
                raise UserError(
                    f"{owners[kind, key]} and {name} both yield {kind} named {key!r}; "
                    "rename one, or give equal samplers"
                )
            owners[kind, key] = name

    def draw(self, num_frames: int, *keys: Key) -> Draw:
        """Draw the views of a video of ``num_frames`` frames with random numbers from ``keys``.

        Raises:
            CodeFault: a sampler fails, draws frames that the video does not have, or draws arrays
                of other shapes than for other videos, which cannot be batched.
        """
        indices: dict[str, NDArray[np.int64]] = {}
        rows: dict[str, NDArray[np.int64]] = {}
        order: dict[str, NDArray[np.int64]] = {}
        for number, sampler in enumerate(self._samplers):
            with blaming(sampler):
                drawn = sampler(num_frames, numpy_generator(*keys, "draw", number))
                shapes, tried = _shapes(drawn), self._shapes[number]
                if wrong := sorted(x for x in {*shapes, *tried} if shapes.get(x) != tried.get(x)):
                    raise ValueError(f"the shape of {', '.join(wrong)} is not as of 64 frames")
                for view, chosen in drawn.frame_indices.items():
                    if chosen.dtype.kind not in "iu":
                        raise TypeError(f"{view} holds {chosen.dtype}, not numbers of frames")
                    if chosen.size and not 0 <= chosen.min() <= chosen.max() < num_frames:
                        raise IndexError(f"{view} holds frames that are not among {num_frames}")
            indices = {**drawn.frame_indices, **indices}
            rows.update(drawn.rows)
            order.update(drawn.order)
        return Draw(
            frame_indices={name: indices[name] for name in self.specs}, rows=rows, order=order
        )


def _shapes(drawn: Draw) -> dict[str, tuple[int, ...]]:
    parts = {"frame_indices": drawn.frame_indices, "rows": drawn.rows, "order": drawn.order}
    return {f"{kind} {name}": x.shape for kind, part in parts.items() for name, x in part.items()}
