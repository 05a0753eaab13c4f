"""A result on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len

from vclr_lightning.core.screen import PlainTable, screen, show
from vclr_lightning.results.value import Result, Scalar, Table, bracket, percent

ROWS = 10
_FIRST = 20  # columns that the names of rows have at least


def show_result(result: Result) -> None:
    """Print summary, scalars and tables."""
    tables = [scalar_table(result.scalars)] if result.scalars else []
    tables += [
        screen_table(one)
        for one in result.content
        if isinstance(one, Table) and one.shown == "everywhere" and one.rows
    ]
    show(*filter(None, [result.summary]), *tables)


def scalar_table(scalars: Sequence[Scalar]) -> PlainTable:
    """Return the scalars in %, with a row for each kind of reference."""
    table = PlainTable("%", min_width=60)
    for one in scalars:
        table.add_column(one.label, justify="right")
    table.add_row("this network", *(percent(one.value) for one in scalars))
    if any(one.interval for one in scalars):
        table.add_row("95% interval", *(bracket(one.interval) for one in scalars))
    for kind, title in (
        ("chance", "chance level"),
        ("untrained", "untrained"),
        ("published", "paper"),
    ):
        numbers = [getattr(one, kind) for one in scalars]
        if any(number is not None for number in numbers):
            table.add_row(title, *map(percent, numbers))
    return table


def screen_table(table: Table) -> PlainTable:
    """Return a table that fits the screen; of a long one, the rows with the lowest values.

    Example:
        >>> from vclr_lightning.core.screen import screen
        >>> table = Table(title="Classes", columns=["class", "videos"], rows=[["run", 40]])
        >>> screen(width=24).print(screen_table(table))  # doctest: +NORMALIZE_WHITESPACE
        Classes
        ┏━━━━━━━┳━━━━━━━━┓
        ┃ class ┃ videos ┃
        ┡━━━━━━━╇━━━━━━━━┩
        │ run   │     40 │
        └───────┴────────┘
    """
    rows, title = list(table.rows), table.title
    names = [column.name for column in table.heads]
    if table.lowest and len(rows) > ROWS:
        title = f"{title}: the {ROWS} of {len(rows)} with the lowest {table.lowest}"
        rows = sorted(rows, key=lambda row: row[names.index(table.lowest)])[:ROWS]
    shown = PlainTable(title=title or None, title_justify="left", min_width=min(80, len(title)))
    kept = [i for i, column in enumerate(table.heads) if not column.wide]
    heads = {i: table.heads[i].title or names[i] for i in kept}
    widths = {
        i: max(map(cell_len, [heads[i], *(table.heads[i].text(row[i]) for row in rows)]))
        for i in kept
    }
    first, *others = kept
    least = min(_FIRST, widths[first])
    room = screen().width - least - 3 * len(kept) - 1  # padding and borders
    fitting = (w for w in range(room, 0, -1) if sum(min(w, widths[i]) for i in others) <= room)
    most = next(fitting, 1)
    for i in kept:
        side: Literal["left", "right"] = "left" if table.wordy[i] else "right"
        # a minimum alone would push the others off the screen
        bounds = {"min_width": least} if i == first else {"max_width": most}
        shown.add_column(heads[i], justify=side, overflow="fold", **bounds)
    for row in rows:
        shown.add_row(*(table.heads[i].text(row[i]) for i in kept))
    return shown
