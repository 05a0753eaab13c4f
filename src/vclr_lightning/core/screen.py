"""What is printed for people, shown as it is: a path or a class may look like rich's markup, or
hold what terminals take for commands."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vclr_lightning.core.errors import harmless


class PlainTable(Table):
    """A table whose title, heads and cells are text, on anyone's console.

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
        shown = None if title is None else Text(harmless(title), style="table.title")
        super().__init__(title=shown, **options)
        for header in headers:
            self.add_column(header)

    def add_column(self, header: Any = "", *args: Any, **options: Any) -> None:
        """Add a column; see :class:`rich.table.Table`."""
        super().add_column(_text(header), *args, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row; see :class:`rich.table.Table`."""
        super().add_row(*map(_text, cells), **options)


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **options)


def screen(**options: Any) -> Console:
    """Return a console that reads nothing into what it prints, nor lets a terminal do so.

    Args:
        options: of :class:`rich.console.Console`.
    """
    return _PlainConsole(markup=False, emoji=False, highlight=False, **options)


def show(*things: Any) -> None:
    """Print tables, and lines that are not broken, on standard output."""
    console = screen()
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str))


def wrote(file: str | Path) -> None:
    """Say where a file has been written, as a shell reads its path."""
    show(f"wrote {quote(str(file))}")


def _text(cell: Any) -> Any:
    return Text(harmless(cell)) if isinstance(cell, str) else cell
