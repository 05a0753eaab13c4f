"""Progress on the terminal, or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from vclr_lightning.core.screen import screen

if TYPE_CHECKING:
    from rich.console import Console

_LINE_EVERY = 10.0  # seconds between lines where standard error is no terminal

T = TypeVar("T")
Update = Callable[[int, str], None]


@contextmanager
def progress_bar(text: str, total: int | None = None, *, show: bool = True) -> Iterator[Update]:
    """Yield ``update(completed, note)``, which moves a bar on standard error.

    Where that is no terminal but a log, a line is written every 10 seconds instead.

    Args:
        text: what is going on.
        total: how much there is to do; ``None`` where that is not known.
        show: whether to show anything.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = screen(stderr=True)
    if not show or not console.is_terminal:
        yield _lines(text, total, console) if show else lambda completed, note: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text, total=total, note="")
        yield lambda completed, note: progress.update(task, completed=completed, note=note)


def _lines(text: str, total: int | None, console: Console) -> Update:
    last = time.monotonic()

    def update(completed: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY:
            last = time.monotonic()
            of = "" if total is None else f" of {total:,}"
            line = f"{text}: {completed:,}{of} {note}".rstrip()
            console.print(line, soft_wrap=True)

    return update


def track(items: Iterable[T], description: str, *, show: bool = True) -> Iterator[T]:
    """Yield ``items`` behind a :func:`progress_bar`.

    Example:
        >>> list(track([1, 2], "numbers", show=False))
        [1, 2]
    """
    total = len(items) if isinstance(items, Sized) else None
    with progress_bar(description, total, show=show) as update:
        for number, item in enumerate(items, 1):
            yield item
            update(number, "")
