"""A diagnosis as a result: numbers, tables, distributions, and pictures of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vclr_lightning.data.doctor.composition import class_table, distributions, kinds
from vclr_lightning.data.doctor.doctor_pictures import galleries
from vclr_lightning.data.manifest import summarise
from vclr_lightning.results import Column, Result, Table

if TYPE_CHECKING:
    from vclr_lightning.data.doctor.subject import Diagnosis, Finding
    from vclr_lightning.data.manifest import Manifest

_SINGULAR = {
    "are sets": "is a set",
    "are groups": "is a group",
    "are": "is",
    "have": "has",
    "show": "shows",
    "promise": "promises",
}
_LISTED = 200  # videos of a finding in the page's table; the CSV file has all
_TOGETHER = 8  # paths of a set
_NAME = 22  # characters of a name


def result_of_diagnosis(diagnosis: Diagnosis, *, segments: int = 8, clip: int = 1) -> Result:
    """Return the page of a diagnosis, ``doctor.html``, with ``doctor.json`` and ``videos.csv``.

    Args:
        diagnosis: of the videos.
        segments: up to which the page says how many videos are too short.
        clip: frames that a clip spans, from its first to its last one.
    """
    subject, findings = diagnosis.subject, diagnosis.findings
    manifest = subject.manifest
    short = diagnosis.segments(segments, clip=clip)
    summary = summarise(manifest)
    return Result(
        title=f"Videos of {_name(manifest)}",
        summary=_sentence(diagnosis),
        content=[
            _findings_table(findings),
            *_prepare_table(diagnosis),
            _segments_table(short, len(manifest), clip),
            *galleries(manifest, findings),
            *_lists(findings),
            *distributions(manifest, subject.frames()),
            *kinds(manifest),
            class_table(manifest),
        ],
        provenance={
            "videos": f"{manifest.root}",
            "manifest": f"{manifest.file}",
            "hours": "unknown" if summary.hours is None else f"{summary.hours:,.2f}",
            "bytes": "unknown" if summary.bytes is None else f"{summary.bytes:,}",
            "not seen": "damage between the frames that were decoded (vclr index --decode "
            "decodes all), and copies that are cut, cropped or mirrored",
        },
        provenance_title="What was examined",
        record=_record(diagnosis, short),
        file="doctor",
        page="doctor.html",
    )


def _name(manifest: Manifest) -> str:
    return manifest.root.resolve().name or str(manifest.root)


def _files(diagnosis: Diagnosis) -> int:
    lost = sum(one.lost for one in diagnosis.subject.rejected)
    return len(diagnosis.subject.results) + lost


def _sentence(diagnosis: Diagnosis) -> str:
    count = _files(diagnosis)
    noun = "one video" if count == 1 else f"{count:,} videos"
    hurting = [one for one in diagnosis.findings if one.hurts]
    if not diagnosis.findings:
        return f"Nothing is wrong with the {noun}."
    if not hurting:
        return f"Of {noun} none would hurt; some deserve a look."
    parts = "; ".join(_counted(one) for one in hurting)
    return f"Of {noun}, {parts}."


def _counted(one: Finding) -> str:
    count, title = len(one.videos), one.title
    if count == 1:
        begin = next((words for words in _SINGULAR if title.startswith(words)), "")
        title = _SINGULAR.get(begin, "") + title.removeprefix(begin)
    return f"{count:,} {title}"


def _findings_table(findings: Sequence[Finding]) -> Table:
    return Table(
        title="Findings",
        columns=[
            Column("what they are or have"),
            "number",
            "hurts",
            "such as",
        ],
        rows=[
            [
                *(one.title, len(one.videos), "yes" if one.hurts else "no"),
                _brief(one.videos[0][0]),
            ]
            for one in findings
        ],
        marks=["failed" if one.hurts else "" for one in findings],
        text="What hurts makes training fail, or what is measured wrong.",
    )


def _brief(paths: str) -> str:
    """The name of the first video, its middle left out where it is long."""
    name = paths.split("\n")[0].rpartition("/")[2]
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[1 - _NAME // 2 :]}"


def _few(paths: str) -> str:
    """The first of several paths, one a line."""
    lines = paths.split("\n")
    more = len(lines) - _TOGETHER
    return "\n".join([*lines[:_TOGETHER], *([f"and {more:,} more"] if more > 0 else [])])


def _prepare_table(diagnosis: Diagnosis) -> Iterator[Table]:
    if diagnosis.cost is None:
        return
    (cost, ratio), spacing = diagnosis.cost, summarise(diagnosis.subject.manifest).keyframes
    yield Table(
        title="What preparing would gain",
        columns=["vclr prepare", "now", "after"],
        rows=[
            ["frames from keyframe to keyframe, median", spacing and f"{spacing[1]:.3g}", "8"],
            ["ms to read 3 + 3 frames", f"{1e3 * cost.before:.3g}", f"{1e3 * cost.after:.3g}"],
            ["bytes", "1", f"{ratio:.2f} x"],
        ],
        text=f"Measured on {cost.videos} re-encoded videos: reading becomes "
        f"{cost.before / cost.after:.1f} times as fast.",
    )


def _segments_table(short: Sequence[tuple[int, int, int]], count: int, clip: int) -> Table:
    clips = "frames" if clip == 1 else f"clips of {clip} frames"
    return Table(
        title="Too short for S segments",
        text=f"Of {count:,} rows, those with fewer than S {clips}, whose segments overlap, and "
        "those with fewer than 2 S frames, where anchor and positive of a segment are one frame. "
        "Training uses such videos as they are.",
        columns=["S", Column("overlap", f"fewer than S {clips}"), Column("same", "fewer than 2 S")],
        rows=short,
        shown="everywhere" if any(overlap or same for _, overlap, same in short) else "page",
    )


def _lists(findings: Sequence[Finding]) -> Iterator[Table]:
    """What each finding is about: a part on the page, and all of it in a file."""
    for one in findings:
        rest = len(one.videos) - _LISTED
        more = f" The first {_LISTED}; videos.csv has {rest:,} more." if rest > 0 else ""
        yield Table(
            title=_counted(one),
            text=one.advice + more,
            columns=["video", "detail"],
            rows=[[_few(paths), detail] for paths, detail in one.videos[:_LISTED]],
            shown="page",
        )
    yield Table(
        columns=["finding", "hurts", "video", "detail"],
        rows=[[one.name, one.hurts, *row] for one in findings for row in one.videos],
        file="videos",
        shown="file",
    )


def _record(diagnosis: Diagnosis, short: Sequence[tuple[int, int, int]]) -> Mapping[str, Any]:
    manifest = diagnosis.subject.manifest
    summary, cost = summarise(manifest), diagnosis.cost
    return {
        "videos": _files(diagnosis),
        "rows": len(manifest),
        "root": str(manifest.root),
        "manifest": str(manifest.file),
        "hurts": diagnosis.hurts,
        "findings": [
            {
                **{k: getattr(one, k) for k in ("name", "title", "hurts", "advice")},
                "number": len(one.videos),
            }
            for one in diagnosis.findings
        ],
        "segments": [{"segments": s, "overlap": a, "same": b} for s, a, b in short],
        "splits": summary.splits,
        "sizes": summary.sizes,
        "codecs": summary.codecs,
        "frames": summary.frames,
        "hours": summary.hours,
        "keyframes": summary.keyframes,
        "prepare": cost
        and {"before": cost[0].before, "after": cost[0].after, "bytes_ratio": cost[1]},
    }
