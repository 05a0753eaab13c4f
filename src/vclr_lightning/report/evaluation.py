"""The page of an evaluation: one table, and each stage's own page below it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from vclr_lightning.core.files import replacing
from vclr_lightning.evaluation.outcomes import COLUMNS, Outcome, Outcomes, remark
from vclr_lightning.report.frame import frame


def write_evaluation_page(path: str | Path, outcomes: Outcomes, *, directory: str | Path) -> Path:
    """Write one file that holds the table and the pages of all evaluations.

    Args:
        path: the file to write, in one step.
        outcomes: what to show.
        directory: the folder that the evaluations' pages are below.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    body = "\n".join(_body(outcomes, Path(directory)))
    with replacing(path) as file:
        file.write(frame("Evaluation", body).encode())
    return path


def _body(outcomes: Outcomes, directory: Path) -> Iterator[str]:
    yield "<h1>Evaluation</h1>"
    yield f'<p class="lead">{escape(_summary(outcomes))}</p>'
    yield f"<p><code>{escape(outcomes.checkpoint)}</code></p>"
    yield f'<div class="scroll">{_table(outcomes)}</div>'
    yield from (f'<p class="note">{escape(sentence)}</p>' for sentence in outcomes.remarks)
    if any(row.paper for row in outcomes.rows):
        yield (
            '<p class="note">Paper: what the authors published for a network pretrained on all of '
            "Kinetics-400.</p>"
        )
    for row in outcomes.rows:
        page = directory / row.page
        if row.page and page.is_file():
            yield f"<h2>{escape(row.stage)}, {escape(row.dataset)}</h2>"
            text = page.read_text("utf-8", errors="replace")
            content = escape(_within(text, row.page), quote=True)
            title = escape(f"{row.stage}, {row.dataset}", quote=True)
            yield f'<iframe class="page" title="{title}" srcdoc="{content}"></iframe>'


def _within(page: str, path: str) -> str:
    """Let a page's links lead from its own folder, and open beside it."""
    folder = "/".join(map(quote, Path(path).parent.parts))
    return page.replace("<title>", f'<base href="{folder}/" target="_blank">\n<title>', 1)


def _summary(outcomes: Outcomes) -> str:
    """Say how many evaluations there are, and how many have no number."""
    done = len(outcomes.rows) - len(outcomes.left_out)
    sentence = f"{done} of {len(outcomes.rows)} evaluations, in %."
    if outcomes.left_out:
        sentence += " What was left out is in the table, with its reason."
    return sentence


def _table(outcomes: Outcomes) -> str:
    head = "".join(f"<th>{escape(COLUMNS[column])}</th>" for column in outcomes.columns)
    rows = "".join(_rows(row, outcomes.columns) for row in outcomes.rows)
    return (
        '<table class="outcomes"><tr><th>evaluation</th><th>videos</th><th>measure</th>'
        f"{head}<th></th></tr>{rows}</table>"
    )


def _rows(row: Outcome, columns: list[str]) -> str:
    shown = []
    for number, line in enumerate(row.lines):
        names = [row.stage, "\n".join([row.dataset, *row.counts])] if number == 0 else ["", ""]
        cells = [*names, line.measure, *(getattr(line, column) for column in columns)]
        body = "".join(f"<td>{escape(cell).replace(chr(10), '<br>')}</td>" for cell in cells)
        note = escape(remark(row)) if number == 0 else ""
        kind = row.status.replace(" ", "-")
        shown.append(f'<tr class="{kind}">{body}<td class="soft">{note}</td></tr>')
    return "".join(shown)
