"""What computes an augmentation: torch, OpenCV, or the training device."""

from __future__ import annotations

import copy
from dataclasses import is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast, get_args

from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from vclr_lightning.data.protocols import ClipTransform, SplitTransform

Backend = Literal["torch", "opencv"]
"""What a worker augments with."""

Augment = Literal["torch", "opencv", "device"]
"""What augments: the workers with one of two libraries, or the workers and then the device."""


def load_opencv() -> ModuleType:
    """Return the OpenCV backend.

    Raises:
        UserError: OpenCV is not installed.
    """
    return import_module("vclr_lightning.data.transforms.opencv")


def check_backend(name: str) -> None:
    """Raise :class:`UserError` if there is no such backend or it cannot be loaded."""
    if name not in get_args(Backend):
        raise UserError(f"backend={name!r} is unknown; take {' or '.join(get_args(Backend))}")
    if name == "opencv":
        load_opencv()


def is_split(transform: object) -> TypeGuard[SplitTransform]:
    """Return whether a transform can leave work to the device.

    A subclass that overrides ``__call__`` alone cannot: the device would not run it. Nor can one
    that makes targets.
    """
    kinds = type(transform).__mro__
    begins = [kind for kind in kinds if "begin" in vars(kind)]
    calls = [kind for kind in kinds if "__call__" in vars(kind)]
    makes_targets = bool(getattr(transform, "targets", ()))
    if not begins or not hasattr(transform, "finish") or makes_targets:
        return False
    return not calls or issubclass(begins[0], calls[0])


def choose(transform: ClipTransform, augment: str | None, *, strict: bool = True) -> ClipTransform:
    """Return ``transform`` set up for one of the ways to augment; unchanged for ``None``.

    A transform without a ``backend`` counts as torch's. If not ``strict``, one that cannot be
    computed in this way is returned unchanged.

    Raises:
        UserError: there is no such way, or not for this transform.

    Example:
        >>> from vclr_lightning.data.transforms import PretrainTransform
        >>> choose(PretrainTransform(), "opencv").backend
        'opencv'
    """
    if augment is None:
        return transform
    if augment not in get_args(Augment):
        raise UserError(f"augment={augment!r} is unknown; take {', '.join(get_args(Augment))}")
    given = cast(Any, transform)
    if augment == "device":
        possible = is_split(given)
    else:
        possible = is_dataclass(given) and hasattr(given, "backend")
        if possible and given.backend != augment:
            check_backend(augment)
            given = copy.copy(given)  # keeps the attributes of a subclass
            object.__setattr__(given, "backend", augment)
    if strict and not possible and augment != "torch":
        raise UserError(
            f"augment={augment!r} is not for {type(given).__name__}, which only torch computes, in "
            "the workers; take 'torch'"
        )
    return cast("ClipTransform", given)
