"""Validation of numeric settings, with a message of one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from vclr_lightning.core.errors import UserError


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Require a whole number (Python's or NumPy's) of at least ``least``.

    Raises:
        UserError: it is not.

    Example:
        >>> check_count("k", 2.5)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: k=2.5 must be a whole number, 1 or more
    """
    if not hasattr(value, "__index__") or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value} must be a whole number, {least} or more")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
) -> None:
    """Require a finite number within bounds.

    Raises:
        UserError: it is not.

    Example:
        >>> check_number("momentum", 5, least=0, below=1)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: momentum=5 must be a number, at least 0 and below 1
    """
    bounds = {"above": above, "at least": least, "below": below}
    text = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isfinite(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
    )
    if not fits:
        raise UserError(f"{name}={value} must be a number, {text}")


def check_numbers(name: str, values: Any, **bounds: float) -> None:
    """Require a non-empty list of numbers that :func:`check_number` accepts.

    Raises:
        UserError: it is not.

    Example:
        >>> check_numbers("costs", 0.1, above=0)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: costs=0.1 must be a list of one or more numbers
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise UserError(f"{name}={values} must be a list of one or more numbers")
    for value in values:
        check_number(name, value, **bounds)
