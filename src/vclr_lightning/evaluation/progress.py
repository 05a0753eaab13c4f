"""A progress bar around what takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, *, show: bool = True) -> Iterator[T]:
    """Yield ``items`` behind a bar on the terminal's standard error; it goes when they end.

    Example:
        >>> list(track([1, 2], "numbers", show=False))
        [1, 2]
    """
    if not show:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    length = len(items) if isinstance(items, Sized) else None
    yield from rich_track(
        items, description=description, total=length, console=console, transient=True
    )
