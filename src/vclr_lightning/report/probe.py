"""The page of a probe: accuracies, confusion matrix, and every class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from torch import Tensor

from vclr_lightning.core.files import replacing
from vclr_lightning.report.confusion import NUMBERED, confusion_chart, confusion_key
from vclr_lightning.report.content import Score
from vclr_lightning.report.frame import frame
from vclr_lightning.report.page import tile
from vclr_lightning.report.tables import html_table


@dataclass(frozen=True)
class ProbePage:
    """Everything on the page; what is left empty is not shown.

    Attributes:
        title: of the page.
        summary: what was found, in a sentence or two.
        scores: accuracies beside chance.
        notes: what a reader has to know of the numbers, a sentence each.
        search: table of the settings that were compared: its head, then the rows.
        confusion: ``(c, c)`` counts, by true and predicted class.
        names: of the classes of ``confusion``.
        confusions: table of what is most often predicted as what: its head, then the rows.
        classes: table of all classes: its head, then the rows.
        facts: where the features come from, by name.
        facts_title: what stands over them.
    """

    title: str
    summary: str = ""
    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    search: Sequence[Sequence[str]] = ()
    confusion: Tensor | None = None
    names: Sequence[str] = ()
    confusions: Sequence[Sequence[str]] = ()
    classes: Sequence[Sequence[str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    facts_title: str = "The features"


def write_probe_page(path: str | Path, page: ProbePage) -> Path:
    """Write a page that needs no other file and no network.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = write_probe_page(tempfile.mkdtemp() + "/report.html", ProbePage("A probe"))
        >>> "<h1>A probe</h1>" in file.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    with replacing(path) as file:
        file.write(frame(page.title, "\n".join(_body(page))).encode())
    return path


def _body(page: ProbePage) -> Iterator[str]:
    yield f"<h1>{escape(page.title)}</h1>"
    if page.summary:
        yield f'<p class="lead">{escape(page.summary)}</p>'
    if page.scores:
        yield f'<div class="tiles narrow">{"".join(map(tile, page.scores))}</div>'
    for note in page.notes:
        yield f'<p class="note">{escape(note)}</p>'
    if page.confusion is not None:
        yield "<h2>Confusion matrix</h2>"
        yield (
            '<p class="note">A row for each true class, a column for each predicted class; correct '
            "predictions are on the diagonal. "
            + (
                "Numbers are videos."
                if len(page.names) <= NUMBERED
                else "Point at a cell to see its classes and number; confusion.csv holds them all."
            )
            + "</p>"
        )
        yield confusion_key()
        yield f'<div class="scroll">{confusion_chart(page.confusion, page.names)}</div>'
    if page.confusions:
        yield "<h3>Most often mistaken</h3>"
        yield f'<div class="scroll">{html_table(page.confusions)}</div>'
    if page.search:
        yield "<h2>Settings compared</h2>"
        yield (
            '<p class="note">Top-1 in % of training videos held out in turn; videos of one group '
            "(source) are never on both sides.</p>"
        )
        yield f'<div class="scroll">{html_table(page.search)}</div>'
    if page.classes:
        yield "<h2>Classes</h2>"
        yield f'<div class="scroll tall">{html_table(page.classes)}</div>'
    if page.facts:
        yield f"<h2>{escape(page.facts_title)}</h2>"
        rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in page.facts.items())
        yield f"<dl>{''.join(rows)}</dl>"
