"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch import Tensor

NAMED = 40  # classes, up to which their names stand beside the picture
_CELL = 16  # units of the drawing


def confusion_chart(confusion: Tensor, names: Sequence[str]) -> str:
    """Draw how the videos of each class (row) are told, the darker the larger their share.

    Right ones are on the diagonal. Pointing at a cell tells its classes and number.

    Args:
        confusion: ``(c, c)`` counts.
        names: of the classes.

    Returns:
        An ``<svg>``.

    Example:
        >>> import torch
        >>> svg = confusion_chart(torch.tensor([[3, 1], [0, 0]]), ["run", "jump"])
        >>> svg.count("<rect"), "run taken for jump: 1 of 4" in svg
        (3, True)
    """
    count = len(names)
    named = count <= NAMED
    left = 10 + 6 * max(len(name) for name in names) if named else 0
    side = count * _CELL
    width, height = left + side, side + left
    total = confusion.sum(dim=1).tolist()
    cells = []
    for row, column in confusion.nonzero().tolist():
        number = int(confusion[row, column])
        right = row == column
        told = "told rightly" if right else f"taken for {names[column]}"
        title = escape(f"{names[row]} {told}: {number} of {total[row]}")
        cells.append(
            f'<rect class="cell {"right" if right else "wrong"}" x="{left + column * _CELL}" '
            f'y="{row * _CELL}" width="{_CELL}" height="{_CELL}" '
            f'fill-opacity="{0.15 + 0.85 * number / total[row]:.3f}"><title>{title}</title></rect>'
        )
    frame = f'<rect class="field" x="{left}" y="0" width="{side}" height="{side}"/>'
    labels = "".join(_labels(names, left, side)) if named else ""
    # Few classes are not blown up to the width of the page.
    style = f'style="max-width:{max(width * 1.6, 320):.0f}px"'
    return (
        f'<svg class="confusion" viewBox="0 0 {width} {height if named else side}" {style} '
        f'role="img" aria-label="confusion matrix">{frame}{"".join(cells)}{labels}</svg>'
    )


def _labels(names: Sequence[str], left: int, side: int) -> list[str]:
    rows = [
        f'<text x="{left - 6}" y="{(i + 0.72) * _CELL:.1f}" text-anchor="end">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    columns = [
        f'<text transform="translate({left + (i + 0.72) * _CELL:.1f} {side + 6}) rotate(-90)" '
        f'text-anchor="end">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    return rows + columns
