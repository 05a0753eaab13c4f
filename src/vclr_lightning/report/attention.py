"""The page of attention: strips of frames with heat maps."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from vclr_lightning.core.files import replacing
from vclr_lightning.report.frame import frame


@dataclass(frozen=True)
class AttentionStrip:
    """One video.

    Attributes:
        name: of the video.
        text: what is explained, in a line.
        png: content of the strip's file.
        film: name of the film beside the page.
    """

    name: str
    text: str
    png: bytes
    film: str


@dataclass(frozen=True)
class AttentionPage:
    """Everything on the page; what is left empty is not shown.

    Attributes:
        title: of the page.
        summary: what is shown, in a sentence or two.
        notes: what a reader has to know, a sentence each.
        strips: of the videos.
        facts: about networks and frames, by name.
    """

    title: str
    summary: str = ""
    notes: Sequence[str] = ()
    strips: Sequence[AttentionStrip] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_attention(path: str | Path, page: AttentionPage) -> Path:
    """Write a page that needs no network; only its links to films need the files beside it.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = write_attention(tempfile.mkdtemp() + "/report.html", AttentionPage("Attention"))
        >>> "<h1>Attention</h1>" in file.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    with replacing(path) as file:
        file.write(frame(page.title, "\n".join(_body(page))).encode())
    return path


def _body(page: AttentionPage) -> Iterator[str]:
    yield f"<h1>{escape(page.title)}</h1>"
    if page.summary:
        yield f'<p class="lead">{escape(page.summary)}</p>'
    for note in page.notes:
        yield f'<p class="note">{escape(note)}</p>'
    for strip in page.strips:
        source = "data:image/png;base64," + base64.b64encode(strip.png).decode()
        alt = escape(f"{strip.name}: {strip.text}", quote=True)
        yield f"<h2>{escape(strip.name)}</h2>"
        yield (
            f'<figure><div class="scroll"><img alt="{alt}" src="{source}"></div>'
            f'<figcaption>{escape(strip.text)} · <a href="{escape(strip.film, quote=True)}">film'
            "</a></figcaption></figure>"
        )
    if page.facts:
        yield "<h2>What was looked at</h2>"
        rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in page.facts.items())
        yield f"<dl>{''.join(rows)}</dl>"
