"""Tables of text as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table: a head, then rows; columns of words stand left, those of numbers right.

    Example:
        >>> html_table([["class", "right"], ["run", "50.0"]])[:64]
        '<table><tr><th class="words">class</th><th>right</th></tr><tr><t'
    """
    head, *body = rows
    words = [
        not cells or not all(map(_is_number, cells))
        for cells in ([row[i] for row in body] for i in range(len(head)))
    ]

    def line(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="words"' if left else "" for left in words)
        cells = (
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in body)}</table>"


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").replace(",", "") or 0)
    except ValueError:
        return False
    return True
