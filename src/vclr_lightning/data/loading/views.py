"""Which views are read, and which sampler draws each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.core.random import Key, numpy_generator
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.faults import blaming
from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.protocols import Sampler, VideoTable

_TRIED = 64  # frames of the video with which a sampler is tried


class ViewPlan:
    """Draws the needed views of a video with one or more samplers.

    A sampler draws all its views with random numbers of its own, keyed by its name, so a draw
    depends neither on which views are needed nor on other samplers. One that gives nothing needed
    is not called.

    Args:
        samplers: at least one, by name. No two may give a view, rows or a target of one name.
        needed: names of the views to read; ``None`` for all.
        targets: names of the targets needed, whose samplers are then called, too.
        readers: configuration keys of who reads a view, for error messages.

    Attributes:
        specs: the views that are read, in the order of the samplers, without views of 0 clips.
        targets, rows: names of the targets and rows that the samplers called give.
        min_frames: frames that a video must have for all samplers called.

    Raises:
        UserError: there is no sampler; two give the same name; none gives a needed view; a
            sampler's draw does not have the shape that it declares.

    Example:
        >>> from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
        >>> plan = ViewPlan({"tuples": TupleSampler(num_segments=3)}, ["anchor", "extra"])
        >>> dict(plan.specs)
        {'anchor': ViewSpec(clips=3, frames=1, share=None)}
        >>> sorted(plan.draw(300, 0).frame_indices)
        ['anchor']
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler],
        needed: Collection[str] | None = None,
        *,
        targets: Collection[str] = (),
        readers: Mapping[str, str] | None = None,
    ) -> None:
        check_named("objective.samplers", samplers, what="sampler", fits=_is_sampler)
        if not samplers:
            raise UserError(
                "samplers={} must be samplers by name, at least one, such as "
                "{tuples: TupleSampler()}; a method names them in objective.samplers"
            )
        self._samplers: dict[str, Sampler] = {}
        self._shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.min_frames = 1
        self.targets: frozenset[str] = frozenset()
        self.rows: frozenset[str] = frozenset()
        specs: dict[str, ViewSpec] = {}
        owners: dict[tuple[str, str], str] = {}
        for name, sampler in samplers.items():
            drawn = _tried(name, sampler)
            _claim(name, drawn, owners)
            specs |= sampler.views
            if needed is None or {*needed, *targets} & {*sampler.views, *drawn.targets}:
                self._samplers[name], self._shapes[name] = sampler, _shapes(drawn)
                self.min_frames = max(self.min_frames, _least(sampler))
                self.targets |= drawn.targets.keys()
                self.rows |= drawn.rows.keys()
        names = set(specs) if needed is None else set(needed)
        if missing := sorted(names - set(specs)):
            raise UserError(
                f"no sampler yields the view {named(missing, readers)}; "
                f"the samplers {', '.join(samplers)} yield {', '.join(sorted(specs))}"
            )
        self.specs = {name: spec for name, spec in specs.items() if name in names and spec.clips}

    def draw(self, num_frames: int, *keys: Key, times: NDArray[np.float64] | None = None) -> Draw:
        """Draw the views of a video of ``num_frames`` frames with random numbers from ``keys``.

        Args:
            num_frames: of the video.
            keys: of the random numbers.
            times: when each frame is shown, for samplers that need it.

        Raises:
            VideoError: the video has fewer frames than a sampler needs.
            CodeFault: a sampler fails, draws frames that the video does not have, or draws arrays
                of other shapes than for other videos, which cannot be batched.
        """
        parts: dict[str, dict[str, NDArray[Any]]] = {"frame_indices": {}, "rows": {}, "targets": {}}
        for name, sampler in self._samplers.items():
            if num_frames < (least := _least(sampler)):
                raise VideoError(f"it has {num_frames} frames; the sampler {name} needs {least}")
            given = {"times": times} if _needs_times(sampler) else {}
            with blaming(sampler):
                drawn = sampler(num_frames, numpy_generator(*keys, "draw", name), **given)
                shapes, tried = _shapes(drawn), self._shapes[name]
                if wrong := sorted(x for x in {*shapes, *tried} if shapes.get(x) != tried.get(x)):
                    raise ValueError(f"the shape of {', '.join(wrong)} is not as of other videos")
                for view, chosen in drawn.frame_indices.items():
                    if chosen.dtype.kind not in "iu":
                        raise TypeError(f"{view} holds {chosen.dtype}, not numbers of frames")
                    if chosen.size and not 0 <= chosen.min() <= chosen.max() < num_frames:
                        raise IndexError(f"{view} holds frames that are not among {num_frames}")
            for kind, part in parts.items():
                part.update(getattr(drawn, kind))
        read = {name: parts["frame_indices"][name] for name in self.specs}
        return Draw(**{**parts, "frame_indices": read})

    def trial(self) -> Draw:
        """Draw from a video that there is not."""
        count = max(_TRIED, self.min_frames)
        return self.draw(count, 0, times=_times(count))

    @property
    def needs_times(self) -> bool:
        """Whether :meth:`draw` needs the frames' times."""
        return any(map(_needs_times, self._samplers.values()))


def readers_of(module: object) -> dict[str, str]:
    """Return which objectives of a module read each view, target and rows, as configuration keys.

    Example:
        >>> readers_of(object())
        {}
    """
    found: dict[str, list[str]] = {}
    for name, objective in dict(getattr(module, "objectives", {})).items():
        requests = objective.requests().values()
        names = [view for request in requests for view in request.views]
        names += [f"[{request.rows}]" for request in requests if request.rows is not None]
        for read in dict.fromkeys((*names, *getattr(objective, "targets", tuple)())):
            found.setdefault(read, []).append(f"objective.objectives.{name}")
    return {read: " and ".join(keys) for read, keys in found.items()}


def named(missing: Collection[str], readers: Mapping[str, str] | None) -> str:
    """Name views or targets, and who reads the first one.

    Example:
        >>> named(["pace"], {"pace": "objective.objectives.pace"})
        'pace, which objective.objectives.pace reads'
    """
    by = [readers[name] for name in missing if name in readers] if readers else []
    return ", ".join(missing) + (f", which {by[0]} reads" if by else "")


def long_enough(table: VideoTable, least: int) -> NDArray[np.bool_]:
    """Return which rows have at least ``least`` frames, as far as their index says.

    It may be a few frames off; rows of unknown length count as long enough.
    """
    if least == 1:
        return np.ones(len(table), dtype=bool)
    if hasattr(table, "column"):
        counts = np.asarray(table.column("num_frames"), np.float64)
        seconds = table.column("end") - table.column("start")  # of parts of files
        counts = np.fmin(counts, np.ceil(seconds * table.column("fps")))
    else:
        known = (table.num_frames(row) for row in range(len(table)))
        counts = np.array([np.nan if count is None else count for count in known])
    return ~(counts < least)  # a number that is not known is not below


def _tried(name: str, sampler: Sampler) -> Draw:
    """Draw from a video that there is not, and compare with what the sampler declares."""
    kind = type(sampler).__name__
    with blaming(sampler):
        count = max(_TRIED, _least(sampler))
        given = {"times": _times(count)} if _needs_times(sampler) else {}
        drawn = sampler(count, numpy_generator(0), **given)
        _shapes(drawn)
        views, targets = dict(sampler.views), set(getattr(sampler, "targets", ()))
    for view in sorted({*views, *drawn.frame_indices}):
        declared = (views[view].clips, views[view].frames) if view in views else None
        shape = drawn.frame_indices[view].shape if view in drawn.frame_indices else None
        if shape != declared:
            raise UserError(
                f"{kind} (the sampler {name}) declares the view {view} of shape {declared}, but "
                f"draws {shape}; make its views and its draw agree"
            )
    if targets != set(drawn.targets):
        raise UserError(
            f"{kind} (the sampler {name}) declares targets={sorted(targets)}, but draws "
            f"{sorted(drawn.targets)}; make its targets and its draw agree"
        )
    return drawn


def _claim(name: str, drawn: Draw, owners: dict[tuple[str, str], str]) -> None:
    """Note whose the names of a draw are, and refuse those that are another's."""
    kinds = {"the view": drawn.frame_indices, "rows": drawn.rows, "the target": drawn.targets}
    for kind, part in kinds.items():
        for key in part:
            if (owner := owners.setdefault((kind, key), name)) != name:
                raise UserError(
                    f"the samplers {owner} and {name} both yield {kind} {key!r}; wrap one in "
                    "vclr_lightning.data.sampling.Prefixed(sampler, prefix='b_'), and read "
                    f"b_{key} where its own is meant"
                )


def _is_sampler(part: object) -> bool:
    return callable(part) and hasattr(part, "views") and not isinstance(part, type)


def _least(sampler: Sampler) -> int:
    return int(getattr(sampler, "min_frames", 1))


def _needs_times(sampler: Sampler) -> bool:
    return bool(getattr(sampler, "needs_times", False))


def _times(count: int) -> NDArray[np.float64]:
    return np.arange(count) / 25


def _shapes(drawn: Draw) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what was drawn; :class:`TypeError` if it is not all numbers."""
    parts = {"frame_indices": drawn.frame_indices, "rows": drawn.rows, "targets": drawn.targets}
    shapes = {}
    for kind, part in parts.items():
        for name, value in part.items():
            if value.dtype.kind not in "biuf":
                raise TypeError(f"{kind} {name} holds {value.dtype}, not numbers")
            shapes[f"{kind} {name}"] = value.shape
    return shapes
