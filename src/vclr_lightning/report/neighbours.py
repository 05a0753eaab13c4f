"""The page of a retrieval: videos as pictures, and beside each its nearest ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.files import replacing
from vclr_lightning.report.content import Score
from vclr_lightning.report.frame import frame
from vclr_lightning.report.images import data_uri
from vclr_lightning.report.page import tile
from vclr_lightning.report.tables import html_table

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pictured:
    """A video as one picture.

    Attributes:
        picture: ``(3, H, W)`` uint8; ``None`` where it could not be read.
        label: its class.
        name: of the video.
        similarity: to the query, where it is a neighbour.
    """

    picture: Tensor | None
    label: str
    name: str
    similarity: float | None = None


@dataclass(frozen=True)
class Lookup:
    """A query and what is nearest to it.

    Attributes:
        query: the video that was looked up.
        neighbours: nearest first.
        first_hit: how near the nearest video of its class is, from 1; 0 where none was found.
    """

    query: Pictured
    neighbours: Sequence[Pictured]
    first_hit: int


@dataclass(frozen=True)
class NeighbourPage:
    """Everything on the page; what is left empty is not shown.

    Attributes:
        title: of the page.
        summary: what was found, in a sentence or two.
        scores: recall at each k beside chance.
        notes: what a reader has to know of the numbers, a sentence each.
        lookups: under a heading each, which says how they were chosen.
        classes: table of all classes: its head, then the rows.
        confusions: table of the most frequent confusions, likewise.
        facts: where the features come from, by name.
    """

    title: str
    summary: str = ""
    scores: Sequence[Score] = ()
    notes: Sequence[str] = ()
    lookups: Mapping[str, Sequence[Lookup]] = field(default_factory=dict)
    classes: Sequence[Sequence[str]] = ()
    confusions: Sequence[Sequence[str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_neighbours(path: str | Path, page: NeighbourPage) -> Path:
    """Write a page that needs no other file and no network.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = write_neighbours(tempfile.mkdtemp() + "/report.html", NeighbourPage("Found"))
        >>> "<h1>Found</h1>" in file.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    with replacing(path) as file:
        file.write(frame(page.title, "\n".join(_body(page))).encode())
    return path


def _body(page: NeighbourPage) -> Iterator[str]:
    yield f"<h1>{escape(page.title)}</h1>"
    if page.summary:
        yield f'<p class="lead">{escape(page.summary)}</p>'
    if page.scores:
        yield f'<div class="tiles narrow">{"".join(map(tile, page.scores))}</div>'
    for note in page.notes:
        yield f'<p class="note">{escape(note)}</p>'
    if page.lookups:
        yield (
            '<p class="legend"><span class="hit"><i>✓</i></span> of the query\'s class '
            '<span class="miss"><i>✗</i></span> of another; below each its cosine similarity.</p>'
        )
    for heading, lookups in page.lookups.items():
        if lookups:
            yield f"<h2>{escape(heading)}</h2>"
            yield from map(_lookup, lookups)
    if page.confusions:
        yield "<h2>Taken for each other</h2>"
        yield f'<div class="scroll">{html_table(page.confusions)}</div>'
    if page.classes:
        yield "<h2>Classes</h2>"
        yield f'<div class="scroll tall">{html_table(page.classes)}</div>'
    if page.facts:
        yield "<h2>The features</h2>"
        rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in page.facts.items())
        yield f"<dl>{''.join(rows)}</dl>"


def _lookup(lookup: Lookup) -> str:
    query, first = lookup.query, lookup.first_hit
    place = f"own class: rank {first}" if first else "own class not found"
    nearest = "".join(_neighbour(one, query.label) for one in lookup.neighbours)
    return (
        f'<div class="lookup"><figure class="query-video">{_picture(query)}'
        f"<figcaption><b>{escape(query.label)}</b><br>{place}</figcaption></figure>"
        f'<div class="nearest">{nearest}</div></div>'
    )


def _neighbour(video: Pictured, wanted: str) -> str:
    right = video.label == wanted
    kind, sign, word = ("hit", "✓", "right") if right else ("miss", "✗", "wrong")
    similarity = "" if video.similarity is None else f"<span>{video.similarity:.3f}</span>"
    return (
        f'<figure class="{kind}">{_picture(video)}<i aria-label="{word}">{sign}</i>'
        f"<figcaption>{escape(video.label)}{similarity}</figcaption></figure>"
    )


def _picture(video: Pictured) -> str:
    title = escape(f"{video.label}: {video.name}", quote=True)
    if video.picture is None:
        return f'<span class="blank" title="{title}">no picture</span>'
    return f'<img alt="{title}" title="{title}" src="{data_uri(video.picture, quality=85)}">'
