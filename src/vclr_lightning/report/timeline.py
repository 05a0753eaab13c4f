"""A page of proposals beside the truth, a timeline for each video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from vclr_lightning.core.files import replacing
from vclr_lightning.report.charts import line_chart
from vclr_lightning.report.content import Chart, Score
from vclr_lightning.report.frame import frame
from vclr_lightning.report.page import tile
from vclr_lightning.report.scale import Scale, ticks

WIDTH, LEFT, RIGHT, ROW = 860, 84, 96, 20
GOOD = 0.5  # tIoU from which a proposal is drawn as one that finds something


class Proposal(NamedTuple):
    """A proposed stretch of a video, in seconds; ``iou``, its largest tIoU with any truth."""

    start: float
    end: float
    score: float
    iou: float


@dataclass(frozen=True)
class Timeline:
    """What is true of one video, and what was proposed, best first.

    Attributes:
        name: of the video.
        duration: seconds.
        truths: start and end in seconds, and the name of the class.
        proposals: best first.
    """

    name: str
    duration: float
    truths: Sequence[tuple[float, float, str]]
    proposals: Sequence[Proposal]


@dataclass(frozen=True, kw_only=True)
class TimelinePage:
    """What a page shows.

    Attributes:
        title: of the page.
        summary: what was measured, a few sentences.
        scores: shares beside chance.
        chart: recall by average number of proposals.
        notes: what a reader has to know of the numbers.
        heading: which videos are shown.
        timelines: one for each.
    """

    title: str
    summary: str
    scores: Sequence[Score]
    chart: Chart
    notes: Sequence[str]
    heading: str
    timelines: Sequence[Timeline]


def write_timelines(path: str | Path, page: TimelinePage) -> Path:
    """Write the page as one file.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as sink:
        sink.write(frame(page.title, "\n".join(_body(page))).encode())
    return path


def _body(page: TimelinePage) -> Iterator[str]:
    yield f"<h1>{escape(page.title)}</h1>"
    yield f'<p class="lead">{escape(page.summary)}</p>'
    yield f'<div class="tiles narrow">{"".join(map(tile, page.scores))}</div>'
    for note in page.notes:
        yield f'<p class="note">{escape(note)}</p>'
    yield f'<div class="charts"><figure><h3>{escape(page.chart.title)}</h3>'
    yield f"{line_chart(page.chart)}<figcaption>{_legend(page.chart)}</figcaption></figure></div>"
    if page.timelines:
        yield f"<h2>{escape(page.heading)}</h2>"
        yield (
            '<p class="note">Top: what is annotated. Below: proposals with their score and their '
            f"largest tIoU; coloured where it is at least {GOOD:g}.</p>"
        )
    yield '<div style="display: grid; gap: 1rem">'
    for one in page.timelines:
        yield f'<figure class="sample"><h3>{escape(one.name)}</h3>{timeline(one)}</figure>'
    yield "</div>"


def _legend(chart: Chart) -> str:
    return " · ".join(
        f'<span style="color: var(--c{number})">{escape(name)}</span>'
        for number, name in enumerate(chart.lines)
    )


def timeline(one: Timeline) -> str:
    """Return a video's truths and proposals as bars along its time.

    Example:
        >>> video = Timeline("a", 10.0, [(1, 4, "run")], [Proposal(1, 5, 0.8, 0.75)])
        >>> svg = timeline(video)
        >>> svg.count("<rect"), "tIoU 0.75" in svg
        (2, True)
    """
    x = Scale(0, one.duration, LEFT, WIDTH - RIGHT)
    height = ROW * (1 + len(one.proposals)) + 8
    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="0" y2="{height}"/>'
        f'<text x="{x(t):.1f}" y="{height + 14}" text-anchor="middle">{t:g} s</text>'
        for t in ticks(0, one.duration)
        if t <= one.duration
    ]
    parts.append(f'<text class="group" x="{LEFT - 8}" y="14" text-anchor="end">truth</text>')
    for start, end, label in one.truths:
        tip = f"{label}: {start:.1f} s to {end:.1f} s".removeprefix(": ")
        parts.append(_bar(x, start, end, 0, "c2", tip))
    for rank, p in enumerate(one.proposals, start=1):
        parts.append(
            f'<text x="{LEFT - 8}" y="{ROW * rank + 14}" text-anchor="end">proposal {rank}</text>'
        )
        told = f"{p.score:.2f}, tIoU {p.iou:.2f}"
        kind = "c0" if p.iou >= GOOD else "c1"
        tip = f"{p.start:.1f} s to {p.end:.1f} s: {told}"
        parts.append(_bar(x, p.start, p.end, rank, kind, tip))
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{ROW * rank + 14}">{told}</text>')
    name = escape(f"proposals in {one.name}", quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height + 20}" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg>"
    )


def _bar(x: Scale, start: float, end: float, row: int, kind: str, tip: str) -> str:
    return (
        f'<rect class="bar {kind}" x="{x(start):.1f}" y="{ROW * row + 4}" '
        f'width="{max(1.5, x(end) - x(start)):.1f}" height="{ROW - 8}" rx="2">'
        f"<title>{escape(tip)}</title></rect>"
    )
