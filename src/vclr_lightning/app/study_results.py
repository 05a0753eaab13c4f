"""What a study has found: means over seeds, differences, and two sentences on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev

from vclr_lightning.app.studies import CELL, Study
from vclr_lightning.app.study_differences import (
    ArmDifference,
    Values,
    differences,
    found_values,
)
from vclr_lightning.core.files import replacing
from vclr_lightning.core.reading import read_record
from vclr_lightning.results import Bars, Result, Table, present, save
from vclr_lightning.results.artifacts import markdown
from vclr_lightning.results.figures import draw
from vclr_lightning.results.svg import svg_file

_SAME = "the same direction as published of"
_OPPOSITE = "a contradiction of the published difference of"
_NOTHING = "neither confirmed nor contradicted is the published difference of"
_ROUND = 0.05  # % below which a published difference is none


def study_result(study: Study) -> Result:
    """Return tables, plot and sentences of what is done so far."""
    values = found_values(study)
    against = {measure: differences(study, measure, values[measure]) for measure in values}
    bars = {
        title: {arm: list(one.values()) for arm, one in values[measure].items()}
        for measure, title in study.measures.items()
    }
    figure = Bars(
        title="By arm",
        groups={title: arms for title, arms in bars.items() if arms},
        text="Circles: single seeds; bars: their mean.",
    )
    failed = _failures(study)
    main = next(iter(study.measures))
    return Result(
        title=f"{study.title} ({study.paper}, {study.scale} scale)",
        summary=" ".join([*sentences(study, values[main], against[main]), *failed]),
        content=[
            *([figure] if figure.groups else []),
            *(_table(study, measure, values[measure], against[measure]) for measure in values),
        ],
        notes=[study.note] if study.note else [],
        provenance={
            "question": study.question,
            "study": f"{study.name}, {study.scale} scale",
            "seeds": ", ".join(map(str, study.seeds)),
        },
        provenance_title="The study",
        record={
            "study": asdict(study),
            "values": values,
            "differences": {
                m: {arm: asdict(c) for arm, c in a.items()} for m, a in against.items()
            },
        },
        file="study",
        page="study.html",
    )


def _table(
    study: Study, measure: str, values: Values, against: Mapping[str, ArmDifference]
) -> Table:
    """Return a measure of all arms, and of methods that are only published."""
    published = {arm: one[measure] for arm, one in study.published.items() if measure in one}
    arms = dict.fromkeys([*study.arms, *values, *published])
    rows = []
    for arm in arms:
        of_arm = list(values.get(arm, {}).values())
        number = published.get(arm)
        rows.append(
            [
                arm,
                len(of_arm) or None,
                _spread(of_arm),
                f"{against[arm].baseline} {against[arm].text()}" if arm in against else "",
                "" if number is None else f"{number:g}",
            ]
        )
    names = ["arm", "seeds", "in %", "against", "published"]
    filled = [i for i in range(len(names)) if i == 0 or any(row[i] for row in rows)]
    over = sorted({one.over for one in against.values()})
    text = "Mean ± standard deviation over seeds." if values else ""
    if over:
        text += (
            f" In brackets: 95 % interval of the difference, over {' or '.join(over)}. It counts "
            "as measured where the interval and all seeds are on one side of 0."
        )
    return Table(
        title=study.measures[measure],
        columns=[names[i] for i in filled],
        rows=[[row[i] for i in filled] for row in rows] if len(filled) > 1 else [],
        text=text,
        marks=["strong" if arm == study.baseline else "" for arm in arms],
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


def sentences(study: Study, values: Values, against: Mapping[str, ArmDifference]) -> list[str]:
    """Say in two sentences what the main measure shows, and whether the paper's numbers agree.

    A difference whose interval holds 0 is called none.
    """
    if not values:
        return ["Not yet run."]
    title = next(iter(study.measures.values()))
    arms = [arm for arm in values if arm in study.arms]
    best = max(arms, key=lambda arm: fmean(values[arm].values()))
    seeds = len(values[best])
    said = f"{best} is highest by {title}, {_spread(list(values[best].values()))} %"
    said += f" ({seeds} seed{'s' * (seeds > 1)})"
    measured = [arm for arm, one in against.items() if one.sign]
    none = [arm for arm in against if arm not in measured]
    parts = [f"{arm} from {against[arm].baseline} {against[arm].text()}" for arm in measured]
    if parts:
        said += f"; measured are the differences of {', '.join(parts)}"
    if none:
        pairs = [f"{arm} and {against[arm].baseline}" for arm in none]
        said += f"; no difference is measured between {', '.join(pairs)}"
    return [f"{said}.", *_beside_paper(study, against)]


def _beside_paper(study: Study, against: Mapping[str, ArmDifference]) -> list[str]:
    main = next(iter(study.measures))
    known = {arm: one[main] for arm, one in study.published.items() if main in one}
    kinds: dict[str, list[str]] = {_SAME: [], _OPPOSITE: [], _NOTHING: []}
    for arm, one in against.items():
        if arm not in known or one.baseline not in known:
            continue
        step = known[arm] - known[one.baseline]
        sign = 0 if abs(step) < _ROUND else int(math.copysign(1, step))
        kind = _NOTHING if not one.sign else _SAME if one.sign == sign else _OPPOSITE
        kinds[kind].append(f"{arm} ({step:+z.1f} from {one.baseline})")
    parts = [f"{kind} {', '.join(arms)}" for kind, arms in kinds.items() if arms]
    return [f"Beside the paper: {'; '.join(parts)}."] if parts else []


def _failures(study: Study) -> list[str]:
    found = []
    for arm, seed in study.cells():
        record = read_record(study.cell_folder(arm, seed) / CELL) or {}
        if record.get("failed"):
            found.append(f"{arm}, seed {seed}, failed: {record['failed']}.")
    return found


def write_study(study: Study) -> Result:
    """Write ``study.json``, ``study.md``, ``study.svg`` and ``study.html``."""
    result = study_result(study)
    save(result, study.folder)
    write_text(study.folder / "study.md", f"# {result.title}\n\n{as_markdown(result)}")
    for one in result.content:
        if isinstance(one, Bars):
            write_text(study.folder / "study.svg", svg_file(draw(one)[0]))
    return result


def show_study(study: Study) -> int:
    """Write and print what is found; return how many runs have failed."""
    present(write_study(study), study.folder)
    return len(_failures(study))


def as_markdown(result: Result) -> str:
    """Return sentences, tables and notes."""
    tables = [one for one in result.content if isinstance(one, Table) and one.rows]
    parts = [f"**{one.title}.** {one.text}".strip() + f"\n\n{markdown(one)}" for one in tables]
    return "\n\n".join([result.summary, *parts, *result.notes]) + "\n"


def write_text(file: Path, text: str) -> None:
    """Write a file whole."""
    with replacing(file) as sink:
        sink.write(text.encode())
