"""Say something to the person at the terminal, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def saying_once() -> Iterator[None]:
    """Within it, what was said is not said again, however many parts of a run come to it.

    Example:
        >>> with saying_once():
        ...     is_new("2 videos cannot be read"), is_new("2 videos cannot be read")
        (True, False)
        >>> is_new("2 videos cannot be read"), is_new("2 videos cannot be read")
        (True, True)
    """
    if _said.get() is not None:  # the outer one counts
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def is_new(text: str) -> bool:
    """Whether ``text`` is still to be said; it then counts as said."""
    said = _said.get()
    if said is None:
        return True
    new = text not in said
    said.add(text)
    return new


def say(text: str) -> None:
    """Print a line to standard error, if it is new."""
    from vclr_lightning.core.screen import screen

    if is_new(text):
        screen(stderr=True).print(text, soft_wrap=True)
