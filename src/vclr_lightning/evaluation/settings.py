"""Refuse settings that are no numbers, or out of their range, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from vclr_lightning.core.errors import UserError


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of numpy.

    Example:
        >>> is_whole(3), is_whole(3.0), is_whole(True)
        (True, False, False)
    """
    return hasattr(value, "__index__") and not isinstance(value, bool)


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is no whole number from ``least`` on.

    Raises:
        UserError: see above.

    Example:
        >>> check_count("k", 2.5)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: k=2.5 must be a whole number, 1 or more
    """
    if not is_whole(value) or value < least:
        raise UserError(f"{name}={value} must be a whole number, {least} or more")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse what is no finite number within bounds.

    Args:
        name: of the setting.
        value: of it.
        above: what it must exceed.
        least: the least that it may be.
        below: what it must stay below.

    Raises:
        UserError: see above.

    Example:
        >>> check_number("momentum", 5, least=0, below=1)
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: momentum=5 must be a number, at least 0 and below 1
    """
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", least), ("below", below))
        if bound is not None
    ]
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and isfinite(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
    )
    if not fits:
        raise UserError(f"{name}={value} must be a number, {' and '.join(bounds)}")


def check_numbers(name: str, values: Any, **bounds: float) -> None:
    """Refuse what is no list of such numbers as :func:`check_number` accepts.

    Raises:
        UserError: see above.

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
