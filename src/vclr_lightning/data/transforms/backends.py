"""Who computes an augmentation: torch, OpenCV, or the device that trains."""

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
"""Who augments: the workers with one of two libraries, or the workers and then the device."""


def load_opencv() -> ModuleType:
    """Return what augments with OpenCV.

    Raises:
        UserError: it is not installed.
    """
    return import_module("vclr_lightning.data.transforms.opencv")


def check_backend(name: str) -> None:
    """Check that there is such a backend, and that it can be loaded.

    Raises:
        UserError: there is not, or it cannot.
    """
    if name not in get_args(Backend):
        raise UserError(f"backend={name!r} is unknown; take {' or '.join(get_args(Backend))}")
    if name == "opencv":
        load_opencv()


def is_split(transform: object) -> TypeGuard[SplitTransform]:
    """Whether a transform can leave work to the device.

    A subclass that augments otherwise in ``__call__`` alone cannot: the device would not know.
    """
    kinds = type(transform).__mro__
    begins = [kind for kind in kinds if "begin" in vars(kind)]
    calls = [kind for kind in kinds if "__call__" in vars(kind)]
    if not begins or not hasattr(transform, "finish"):
        return False
    return not calls or issubclass(begins[0], calls[0])


def choose(transform: ClipTransform, augment: str | None) -> ClipTransform:
    """Return ``transform`` for one of the ways to augment; ``None`` for it as it is.

    A transform that knows of no backends counts as torch's.

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
            given = copy.copy(given)  # made anew, it would lose what a subclass has added
            object.__setattr__(given, "backend", augment)
    if not possible and augment != "torch":
        raise UserError(
            f"augment={augment!r} is not for {type(given).__name__}, which only torch computes, in "
            "the workers; take 'torch'"
        )
    return cast("ClipTransform", given)
