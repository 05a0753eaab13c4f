"""One self-contained HTML page about a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.files import replacing
from vclr_lightning.evaluation.table import MEASURES
from vclr_lightning.report.charts import bar_chart, line_chart
from vclr_lightning.report.content import Chart, Content, Query, Score, Shown, TupleSample
from vclr_lightning.report.frame import frame
from vclr_lightning.report.images import data_uri

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.evaluation.table import FrozenTable

ORDER_CLASSES = ("neither is shuffled", "anchor shuffled", "positive shuffled", "both shuffled")


def write_report(path: str | Path, content: Content, *, frozen: FrozenTable | None = None) -> Path:
    """Write a page that needs no other file and no network.

    Args:
        path: the file to write, in one step.
        content: what to show.
        frozen: measures of frozen features.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = write_report(tempfile.mkdtemp() + "/report.html", Content("A run"))
        >>> "<h1>A run</h1>" in file.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    with replacing(path) as file:
        file.write(render(content, frozen=frozen).encode())
    return path


def render(content: Content, *, frozen: FrozenTable | None = None) -> str:
    """Return the page as HTML."""
    return frame(content.title, "\n".join(_body(content, frozen)))


def _body(content: Content, frozen: FrozenTable | None) -> Iterator[str]:
    yield f"<h1>{escape(content.title)}</h1>"
    if content.summary:
        yield f'<p class="lead">{escape(content.summary)}</p>'
    if content.scores:
        yield f'<div class="tiles">{"".join(map(tile, content.scores))}</div>'
    if frozen is not None:
        yield from _frozen(frozen)
    if content.queries:
        yield "<h2>What the features find</h2>"
        yield (
            "<p>Unseen videos, and the training videos whose frozen features, in order, are "
            "nearest. Labels serve here to judge the result; training never saw them.</p>"
        )
        yield from map(_query, content.queries)
    if content.charts:
        yield "<h2>Training</h2>"
        yield "<p>Over the steps of the run; dashed: chance.</p>"
        yield from (f'<p class="note">{escape(note)}</p>' for note in content.notes)
        yield f'<div class="charts">{"".join(map(_chart, content.charts))}</div>'
    if content.tuples:
        yield "<h2>What the network saw</h2>"
        yield (
            "<p>Two tuples of each video, drawn and augmented independently, one picture from each "
            "segment. The framed picture x1 is seen once more, in a second augmentation. The order "
            "loss is shown the tuples as numbered, and must predict which of them are shuffled.</p>"
        )
        yield f'<div class="samples">{"".join(map(_sample, content.tuples))}</div>'
    if content.facts:
        yield "<h2>The run</h2>"
        rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in content.facts.items())
        yield f"<dl>{''.join(rows)}</dl>"


def tile(score: Score) -> str:
    """Return how often something was right, beside what needs no information, as HTML."""
    return (
        f'<div class="tile"><span class="soft">{escape(score.name)}</span>'
        f"<b>{100 * score.share:.1f}%</b>"
        f'<i style="--share:{100 * score.share:.1f}%;--chance:{100 * score.chance:.1f}%"></i>'
        f'<span class="soft">chance level {100 * score.chance:.1f}%</span></div>'
    )


def _frozen(frozen: FrozenTable) -> Iterator[str]:
    named = [row for row in frozen.rows if row.name != "chance"]
    chance = frozen.row("chance")
    seeds = max(len(values) for row in named for values in row.values.values())
    yield "<h2>Frozen features against untrained ones and chance</h2>"
    yield (
        f"<p>Measured on {frozen.test_videos} unseen videos with the {frozen.train_videos} "
        "training videos as gallery, and as what the linear probe is fitted to. R@1: the nearest "
        "training video shows the same action. Averaged features "
        f"do not encode the order of a video; concatenated over {frozen.segments} parts "
        "they do.</p>"
    )
    groups = {
        label: {row.name: row.values[measure] for row in named}
        for measure, label in MEASURES.items()
    }
    chances = {label: chance.values[measure][0] for measure, label in MEASURES.items()}
    note = "Dashed: chance."
    if seeds > 1:
        note += (
            " Circles: single seeds; bars and table: their mean ± standard deviation, or one run."
        )
    yield f"<figure>{bar_chart(groups, chances=chances)}<figcaption>{note}</figcaption></figure>"
    head = "".join(f"<th>{escape(label)}</th>" for label in MEASURES.values())
    rows = "".join(
        f'<tr class="{"first" if not number else ""}"><td>{escape(row.name)}</td>'
        + "".join(f"<td>{escape(row.text(measure))}</td>" for measure in MEASURES)
        + "</tr>"
        for number, row in enumerate(frozen.rows)
    )
    yield f'<div class="scroll"><table><tr><th>% right</th>{head}</tr>{rows}</table></div>'


def _chart(chart: Chart) -> str:
    drawn = line_chart(chart)
    if not drawn:
        return ""
    names = "".join(
        f'<span class="soft"><svg class="key" viewBox="0 0 18 8" style="display:inline;width:18px">'
        f'<polyline class="line c{number}" points="1,4 17,4"/></svg> {escape(name)} </span>'
        for number, name in enumerate(chart.lines)
        if len(chart.lines) > 1
    )
    return f"<figure><h3>{escape(chart.title)}</h3>{drawn}{names}</figure>"


def _sample(sample: TupleSample) -> str:
    shuffled = [
        list(order) != sorted(order) for order in (sample.anchor_order, sample.positive_order)
    ]
    rows = [
        _pictures("anchor", sample.anchor, sample.anchor_order, x1=sample.x1),
        _pictures("positive", sample.positive, sample.positive_order),
    ]
    if sample.second is not None:
        rows.append(_pictures("x1, again", sample.second[None], ()))
    verdict = ""
    if sample.anchor_order:
        verdict = f'<p class="note">{ORDER_CLASSES[shuffled[0] + 2 * shuffled[1]]}</p>'
    return f'<div class="sample"><h3>{escape(sample.name)}</h3>{"".join(rows)}{verdict}</div>'


def _pictures(name: str, pictures: Tensor, order: Sequence[int], *, x1: int | None = None) -> str:
    shown = []
    for position, picture in enumerate(pictures):
        place = f"<em>{list(order).index(position) + 1}</em>" if position in order else ""
        style = ' class="x1"' if position == x1 else ""
        image = data_uri(picture)
        shown.append(f'<span{style}><img alt="{escape(name)}" src="{image}">{place}</span>')
    body = "".join(shown)
    return f'<div class="row"><span>{name}</span><div class="pictures">{body}</div></div>'


def _query(query: Query) -> str:
    label = escape(query.video.label)
    rows = [f'<div class="row"><span><b>{label}</b></span>{_strip(query.video)}</div>']
    for name, neighbours in query.neighbours.items():
        shown = "".join(
            f'<figure>{_strip(video)}<figcaption class="'
            f'{"ok" if video.label == query.video.label else "bad"}">{escape(video.label)}'
            "</figcaption></figure>"
            for video in neighbours
        )
        rows.append(
            f'<div class="row"><span>{escape(name)}</span><div class="neighbours">{shown}</div>'
            "</div>"
        )
    return f'<div class="query">{"".join(rows)}</div>'


def _strip(video: Shown) -> str:
    label = escape(video.label, quote=True)
    frames = (f'<img alt="{label}" src="{data_uri(frame)}">' for frame in video.frames)
    return f'<div class="strip">{"".join(frames)}</div>'
