"""Which transform augments which clips of a video, and which are augmented together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.core.random import Key, numpy_generator
from vclr_lightning.data.faults import blaming, described, picture
from vclr_lightning.data.transforms.backends import is_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import ViewSpec
    from vclr_lightning.data.protocols import ClipTransform, SplitTransform

Targets = dict[str, "NDArray[Any]"]


class Augmented(TypedDict):
    """The clips of a video's views, ``(n, C, T, H, W)`` uint8, by name.

    Views that are only begun are under ``begun`` instead, ``(n, T, ...)``, with the parameters
    ``augmentations``, ``(n, P)``. ``targets`` are those that transforms made, ``(n, ...)``.
    """

    views: NotRequired[dict[str, Tensor]]
    begun: NotRequired[dict[str, Tensor]]
    augmentations: NotRequired[dict[str, NDArray[np.int32]]]
    targets: Targets


@dataclass
class _Call:
    """Clips that one call of a transform augments, as one long clip."""

    transform: ClipTransform
    keys: tuple[Key, ...]
    clips: list[tuple[str, slice]] = field(default_factory=list)  # view, and where its frames are


class ViewTransforms:
    """Augments the clips of a video's views.

    Args:
        specs: the views, in the order of their frames.
        transform: of every view but those in ``transforms``.
        transforms: others, by view.
        share: sharing keys by view, instead of those that ``specs`` say; ``None`` for none.
        begin: only begin transforms that can be split (``SplitTransform``).

    Attributes:
        targets: names of the targets that the transforms make, ``VIEW.NAME``.
        begun: names of the views that are only begun.

    Raises:
        CodeFault: a transform that makes targets fails on a black clip.
    """

    def __init__(
        self,
        specs: Mapping[str, ViewSpec],
        transform: ClipTransform,
        *,
        transforms: Mapping[str, ClipTransform] | None = None,
        share: Mapping[str, str | None] | None = None,
        begin: bool = False,
    ) -> None:
        self._specs = specs
        self.of = {name: (transforms or {}).get(name, transform) for name in specs}
        self.begun = frozenset(name for name in specs if begin and is_split(self.of[name]))
        self._calls: list[_Call] = []
        position = 0
        for view, spec in specs.items():
            key = spec.share if share is None else share.get(view, spec.share)
            for number in range(spec.clips):
                use = (view, number) if key is None else (key,)
                clip = (view, slice(position, position + spec.frames))
                self._call(self.of[view], use).clips.append(clip)
                position += spec.frames
        self._made = {view: made for call in self._calls for view, made in self._try(call).items()}
        self.targets = frozenset(
            f"{view}.{name}" for view, made in self._made.items() for name in made
        )

    def _call(self, transform: ClipTransform, keys: tuple[Key, ...]) -> _Call:
        for call in self._calls:
            if call.keys == keys and call.transform == transform:
                return call
        self._calls.append(_Call(transform, keys))
        return self._calls[-1]

    def __call__(self, frames: Sequence[NDArray[np.uint8]], *keys: Key) -> Augmented:
        """Augment the frames of all views, with random numbers from ``keys``.

        Raises:
            CodeFault: a transform fails, or returns something else than it should.
        """
        clips: dict[str, list[Tensor]] = {view: [] for view in self._specs}
        parameters: dict[str, list[NDArray[np.int32]]] = {view: [] for view in self.begun}
        made: dict[str, list[NDArray[Any]]] = {name: [] for name in self.targets}
        for call in self._calls:
            rng = numpy_generator(*keys, "augment", *call.keys)
            long = [frame for _, where in call.clips for frame in frames[where]]
            view = call.clips[0][0]
            if view in self.begun:
                parts, rest = self._begin(call, long, rng)
                for (view, _), part in zip(call.clips, parts, strict=True):
                    clips[view].append(part)
                    parameters[view].append(rest)
                continue
            pixels, targets = self._whole(view, long, rng)
            position = 0
            for view, where in call.clips:
                length = where.stop - where.start
                clips[view].append(pixels[:, position : position + length])
                position += length
                for name, value in targets.items():
                    made[f"{view}.{name}"].append(value)
        views = {view: torch.stack(some) for view, some in clips.items()}
        result: Augmented = {"targets": {name: np.stack(values) for name, values in made.items()}}
        if self.begun:
            result["begun"] = {view: views.pop(view) for view in self._specs if view in self.begun}
            result["augmentations"] = {view: np.stack(rows) for view, rows in parameters.items()}
        if views or not self.begun:
            result["views"] = views
        return result

    def blank(self) -> Augmented:
        """Return black views of the same shapes, and zeros as targets."""
        views, targets = {}, {}
        for view, spec in self._specs.items():
            size = self.of[view].size
            views[view] = torch.zeros(spec.clips, 3, spec.frames, size, size, dtype=torch.uint8)
            for name, value in self._made[view].items():
                targets[f"{view}.{name}"] = np.stack([np.zeros_like(value)] * spec.clips)
        return {"views": views, "targets": targets}

    @classmethod
    def _try(cls, call: _Call) -> dict[str, Targets]:
        """Return the targets that a transform makes of black frames, by view."""
        targets: Targets = {}
        if getattr(call.transform, "targets", ()):
            frames = sum(where.stop - where.start for _, where in call.clips)
            black = [np.zeros((64, 64, 3), np.uint8)] * frames
            _, targets = cls._apply(call.transform, black, numpy_generator(0))
        return {view: targets for view, _ in call.clips}

    def _whole(
        self, view: str, clip: list[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Tensor, Targets]:
        transform = self.of[view]
        pixels, targets = self._apply(transform, clip, rng)
        for name, value in targets.items():
            if value.shape != (usual := self._made[view][name].shape):
                with blaming(transform):
                    raise ValueError(f"its target {name} has the shape {value.shape}, not {usual}")
        return pixels, targets

    @staticmethod
    def _apply(
        transform: ClipTransform, clip: list[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Tensor, Targets]:
        size, names = transform.size, tuple(getattr(transform, "targets", ()))
        with blaming(transform):
            result: Any = transform(clip, rng)
            if not names:
                return picture(result, 3, len(clip), size, size), {}
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"it returns {described(result)}, not (clip, targets)")
            targets = {name: np.asarray(value) for name, value in dict(result[1]).items()}
            for name, value in targets.items():
                if value.dtype.kind not in "biuf":
                    raise TypeError(f"its target {name} holds {value.dtype}, not numbers")
            if set(targets) != set(names):
                raise ValueError(f"it makes the targets {sorted(targets)}, not {sorted(names)}")
            return picture(result[0], 3, len(clip), size, size), targets

    def _begin(
        self, call: _Call, clip: list[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Sequence[Tensor], NDArray[np.int32]]:
        with blaming(call.transform):
            begun, rest = cast("SplitTransform", call.transform).begin(clip, rng)
            if len(call.clips) == 1:
                return [begun], rest
            if len(begun) != len(clip):
                raise ValueError(f"begin() returns {described(begun)} of {len(clip)} frames")
            lengths = [where.stop - where.start for _, where in call.clips]
            return torch.split(begun, lengths), rest


def check_augmentation(
    *, transforms: Mapping[str, Any] | None, share: Mapping[str, Any] | None
) -> None:
    """Raise :class:`UserError` if these are not transforms and sharing keys by view."""
    check_named("objective.transforms", transforms or {}, what="transform", fits=is_transform)
    advice = "give it a word, or leave it out"
    check_named("objective.share", share or {}, what="sharing key", fits=_is_key, advice=advice)


def check_views(
    views: Sequence[str],
    *,
    transforms: Mapping[str, Any] | None,
    share: Mapping[str, Any] | None,
) -> None:
    """Raise :class:`UserError` if these are not transforms and sharing keys of ``views``."""
    check_augmentation(transforms=transforms, share=share)
    for key, given in (("transforms", transforms), ("share", share)):
        if unknown := sorted(set(given or ()) - set(views)):
            raise UserError(
                f"objective.{key} names {', '.join(unknown)}, which no sampler yields; there are "
                f"the views {', '.join(sorted(views))}"
            )


def is_transform(part: object) -> bool:
    """Return whether an object can augment clips."""
    return callable(part) and hasattr(part, "size") and not isinstance(part, type)


def _is_key(part: object) -> bool:
    return part is None or isinstance(part, str) or (type(part) is int and part >= 0)
