"""The terminal: tables, lines, notices and progress, with paths and names printed as they are.

A path or a class name may look like rich's markup, or contain control codes of terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vclr_lightning.core.errors import escape_controls

_LINE_EVERY = 10.0  # seconds between lines where standard error is no terminal
_shown: ContextVar[set[str] | None] = ContextVar("shown", default=None)

T = TypeVar("T")
Update = Callable[[int, str], None]


class PlainTable(Table):
    """A table whose title, headers and cells are plain text, on any console.

    Example:
        >>> table = PlainTable("folder", title="runs of [old]")
        >>> table.add_row("/runs/a[/b] :fire:")
        >>> screen(width=24).print(table)  # doctest: +NORMALIZE_WHITESPACE
             runs of [old]
        ┏━━━━━━━━━━━━━━━━━━━━┓
        ┃ folder             ┃
        ┡━━━━━━━━━━━━━━━━━━━━┩
        │ /runs/a[/b] :fire: │
        └────────────────────┘
    """

    def __init__(self, *headers: str, title: str | None = None, **options: Any) -> None:
        shown = None if title is None else Text(escape_controls(title), style="table.title")
        super().__init__(title=shown, **options)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = "", *args: Any, **options: Any) -> None:
        """Add a column; see :class:`rich.table.Table`."""
        super().add_column(_text(header), *args, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row; see :class:`rich.table.Table`."""
        super().add_row(*map(_text, cells), **options)


def _text(cell: Any) -> Any:
    return Text(escape_controls(cell)) if isinstance(cell, str) else cell


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_controls(text), **options)


def screen(**options: Any) -> Console:
    """Return a :class:`rich.console.Console` without markup, emoji and control codes."""
    return _PlainConsole(markup=False, emoji=False, highlight=False, **options)


def show(*things: Any) -> None:
    """Print tables, and lines without breaking them, on standard output."""
    console = screen()
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str))


def wrote(file: str | Path) -> None:
    """Print where a file has been written, its path quoted for a shell."""
    show(f"wrote {quote(str(file))}")


@contextmanager
def notices_once() -> Iterator[None]:
    """Show each notice only once within the block, however many parts of a run repeat it.

    Example:
        >>> with notices_once():
        ...     is_new("2 videos cannot be read"), is_new("2 videos cannot be read")
        (True, False)
        >>> is_new("2 videos cannot be read"), is_new("2 videos cannot be read")
        (True, True)
    """
    if _shown.get() is not None:  # the outer block counts
        yield
        return
    token = _shown.set(set())
    try:
        yield
    finally:
        _shown.reset(token)


def is_new(text: str) -> bool:
    """Whether a notice has not been shown yet; from now on it counts as shown."""
    shown = _shown.get()
    if shown is None:
        return True
    new = text not in shown
    shown.add(text)
    return new


def notice(text: str) -> None:
    """Print a line on standard error, if it is new; see :func:`notices_once`."""
    if is_new(text):
        screen(stderr=True).print(text, soft_wrap=True)


@contextmanager
def progress_bar(text: str, total: int | None = None, *, show: bool = True) -> Iterator[Update]:
    """Yield ``update(completed, note)``, which advances a bar on standard error.

    Where that is a log and no terminal, a line is written every 10 seconds instead. The ``total``
    is ``None`` where it is unknown.
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
            said = f", {note}" if note else ""
            console.print(f"{text}: {completed:,}{of}{said}", soft_wrap=True)

    return update


def track(items: Iterable[T], description: str, *, show: bool = True) -> Iterator[T]:
    """Yield ``items`` and show a :func:`progress_bar`.

    Example:
        >>> list(track([1, 2], "numbers", show=False))
        [1, 2]
    """
    total = len(items) if isinstance(items, Sized) else None
    with progress_bar(description, total, show=show) as update:
        for number, item in enumerate(items, 1):
            yield item
            update(number, "")
