"""A confusion matrix as a picture, with its key."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import Tensor

NAMED = 40  # classes, up to which their names stand beside the picture
NUMBERED = 25  # classes, up to which the numbers stand in the cells
_LETTER = 6.2  # units of the drawing, of a name
_FAINTEST = 0.12  # of a cell that holds any video


def confusion_chart(confusion: Tensor, names: Sequence[str]) -> str:
    """Draw the predicted class (column) of the videos of each class (row), by share.

    Correct ones are on the diagonal. With few classes the cells hold numbers; pointing at a cell
    always shows its classes and number.

    Args:
        confusion: ``(c, c)`` counts.
        names: of the classes.

    Returns:
        An ``<svg>``.

    Example:
        >>> import torch
        >>> svg = confusion_chart(torch.tensor([[3, 1], [0, 0]]), ["run", "jump"])
        >>> svg.count('<rect class="cell'), "run predicted as jump: 1 of 4 (25%)" in svg
        (2, True)
    """
    count = len(names)
    cell = _cell(count)
    named, numbered = count <= NAMED, count <= NUMBERED
    margin = 10 + _LETTER * max(len(name) for name in names) if named else 0.0
    left, top = margin + 22, 22.0  # of the field: beside it names and what its sides are
    side = count * cell
    width, height = left + side + 2, top + side + margin + 4
    total = confusion.sum(dim=1).tolist()
    drawn = [f'<rect class="field" x="{left:.0f}" y="{top:.0f}" width="{side}" height="{side}"/>']
    for row, column in confusion.nonzero().tolist():
        number, right = int(confusion[row, column]), row == column
        share = number / total[row]
        outcome = "correct" if right else f"predicted as {names[column]}"
        title = escape(f"{names[row]} {outcome}: {number} of {total[row]} ({100 * share:.0f}%)")
        x, y = left + column * cell, top + row * cell
        opacity = _FAINTEST + (1 - _FAINTEST) * share
        drawn.append(
            f'<rect class="cell {_kind(right)}" x="{x:.0f}" y="{y:.0f}" width="{cell}" '
            f'height="{cell}" fill-opacity="{opacity:.3f}"><title>{title}</title></rect>'
        )
        if numbered:
            strong = " strong" if opacity > 0.65 else ""
            drawn.append(
                f'<text class="number{strong}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" '
                f'text-anchor="middle">{number}</text>'
            )
    drawn += _sides(left, top, side)
    if named:
        drawn += _names(names, left=left, top=top, cell=cell)
    # Few classes are not blown up to the width of the page.
    style = f'style="max-width:{max(1.15 * width, 300):.0f}px"'
    return (
        f'<svg class="confusion" viewBox="0 0 {width:.0f} {height:.0f}" {style} role="img" '
        f'aria-label="confusion matrix">{"".join(drawn)}</svg>'
    )


def confusion_key() -> str:
    """Return what the colours of a confusion matrix say, as HTML."""
    shares = (0.1, 0.25, 0.5, 0.75, 1.0)
    rows = []
    for right, meaning in ((True, "correct"), (False, "misclassified")):
        cells = "".join(
            f'<rect class="cell {_kind(right)}" x="{34 * i}" y="0" width="34" height="14" '
            f'fill-opacity="{_FAINTEST + (1 - _FAINTEST) * share:.3f}"/>'
            for i, share in enumerate(shares)
        )
        rows.append(
            f'<span><svg viewBox="0 0 170 14" aria-hidden="true">{cells}</svg>{meaning}</span>'
        )
    percents = "".join(f"<i>{100 * share:.0f}%</i>" for share in shares)
    return (
        f'<div class="key"><span class="shares"><b>{percents}</b>of the class\'s videos</span>'
        f"{''.join(rows)}</div>"
    )


def _kind(right: bool) -> str:
    return "right" if right else "wrong"


def _cell(count: int) -> int:
    """Width of a cell: with room for a number where there is one."""
    if count <= NUMBERED:
        return 34 if count <= 12 else 26
    return 16 if count <= NAMED else 8


def _sides(left: float, top: float, side: int) -> list[str]:
    middle = top + side / 2
    return [
        f'<text class="side" x="{left + side / 2:.0f}" y="12" text-anchor="middle">predicted class'
        "</text>",
        f'<text class="side" transform="translate(12 {middle:.0f}) rotate(-90)" '
        'text-anchor="middle">class of the test videos</text>',
    ]


def _names(names: Sequence[str], *, left: float, top: float, cell: int) -> list[str]:
    bottom = top + len(names) * cell + 8
    rows = [
        f'<text x="{left - 6:.0f}" y="{top + (i + 0.5) * cell + 4:.1f}" text-anchor="end">'
        f"{escape(name)}</text>"
        for i, name in enumerate(names)
    ]
    columns = [
        f'<text transform="translate({left + (i + 0.5) * cell + 4:.1f} {bottom:.0f}) rotate(-90)" '
        f'text-anchor="end">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    return rows + columns
