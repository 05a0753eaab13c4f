"""Untrimmed videos with annotated segments, as rows of a manifest; ActivityNet 1.3."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json
from vclr_lightning.data.datasets.official import (
    Named,
    Official,
    find_file,
    need_file,
    read_lines,
    read_table,
)
from vclr_lightning.data.indexing.listing import SPLIT_NAMES
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Span

ACTIVITYNET_VIEWS = ("clips", "videos", "localization")


class Annotation(NamedTuple):
    """A segment of a video in seconds, and the name of its class."""

    start: float
    end: float
    kind: str


class Untrimmed(NamedTuple):
    """A video in an annotation file; ``name`` is its id on YouTube."""

    name: str
    split: str
    annotations: tuple[Annotation, ...]


def read_database(file: Path) -> list[Untrimmed]:
    """Read ``{"database": {ID: {"subset": ..., "annotations": [...]}}}``.

    Raises:
        UserError: the file cannot be read or is of another form.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise UserError(f"{file} has no 'database' of videos; give the official file")
    return [
        untrimmed(file, name, video, subset=str(_mapping(video).get("subset", "")))
        for name, video in content["database"].items()
    ]


def untrimmed(file: Path, name: str, video: Any, *, subset: str) -> Untrimmed:
    """Return one video of a file.

    Raises:
        UserError: it is of another form, or its subset is unknown.
    """
    if subset not in SPLIT_NAMES:
        raise UserError(f"{file}: {name} has the subset {subset!r}, not training or the like")
    try:
        annotations = tuple(
            Annotation(float(start), float(end), str(a["label"]).strip())
            for a in _mapping(video).get("annotations", ())
            for start, end in [a["segment"]]
        )
        if not all(math.isfinite(a.start) and math.isfinite(a.end) for a in annotations):
            raise ValueError("an infinite time")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: the annotations of {name} are not segments with a label"
        ) from error
    return Untrimmed(name, SPLIT_NAMES[subset], annotations)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"annotations": None}


def class_names(videos: Iterable[Untrimmed]) -> tuple[str, ...]:
    """Return the names of all annotated classes, sorted."""
    return tuple(sorted({a.kind for video in videos for a in video.annotations}))


def as_clips(videos: Sequence[Untrimmed], classes: tuple[str, ...]) -> Official:
    """Make a clip of every annotated segment; videos without, as of a test set, are counted."""
    codes = {name: code for code, name in enumerate(classes)}
    clips, rejected = [], []
    left_out: Counter[str] = Counter()
    for video in videos:
        if not video.annotations:
            left_out[f"videos of {video.split} without annotated clips"] += 1
        for start, end, kind in video.annotations:
            name = f"{video.name}_{start:.2f}_{end:.2f}"
            if not 0 <= start < end:
                reason = "annotated from its end to its start or before"
                rejected.append(Rejected(name, reason, split=video.split))
                continue
            clips.append(
                Named(
                    stems=stems_of(video.name),
                    split=video.split,
                    label=codes[kind],
                    folder=kind,
                    name=name,
                    group=video.name,
                    start=start,
                    end=end,
                )
            )
    return Official(videos=clips, classes=classes, rejected=rejected, left_out=left_out)


def as_videos(
    videos: Sequence[Untrimmed], classes: tuple[str, ...], *, spans: bool = False
) -> Official:
    """Make every video a row with the class of most of its annotated time as label.

    Args:
        videos: of the data set.
        classes: names.
        spans: whether to keep the annotated segments, for localisation.
    """
    codes = {name: code for code, name in enumerate(classes)}
    rows = []
    left_out: Counter[str] = Counter()
    for video in videos:
        good = [a for a in video.annotations if 0 <= a.start < a.end]
        if spans and len(good) < len(video.annotations):
            left_out["annotations of no length"] += len(video.annotations) - len(good)
        kind = main_class(good or video.annotations)
        rows.append(
            Named(
                stems=stems_of(video.name),
                split=video.split,
                label=-1 if kind is None else codes[kind],
                folder=kind or "",
                name=video.name,
                group=video.name,
                spans=tuple(Span(a.start, a.end, codes[a.kind]) for a in sorted(good))
                if spans
                else (),
            )
        )
    return Official(videos=rows, classes=classes, left_out=left_out)


def main_class(annotations: Sequence[Annotation]) -> str | None:
    """Return the class of most of the annotated time, the first one on a tie.

    Example:
        >>> segments = [(0, 2, "run"), (4, 7, "walk"), (8, 10, "run")]
        >>> main_class([Annotation(*segment) for segment in segments])
        'run'
    """
    time: dict[str, float] = defaultdict(float)
    for start, end, kind in annotations:
        time[kind] += end - start
    return max(time, key=lambda kind: time[kind], default=None)


def stems_of(name: str) -> tuple[str, ...]:
    """Return the file names, without suffix, of a video: ``v_ID`` or ``ID``."""
    return f"v_{name}", name


def read_activitynet(folder: Path, *, view: str = "clips") -> Official:
    """Read ActivityNet's annotations.

    Either ``activity_net.v1-3.min.json``, or ``anet_anno_action.json`` with
    ``video_info_new.csv``, which name fewer videos. Classes are in the order of
    ``action_name.csv`` where there is one, and sorted otherwise.

    Args:
        folder: with the annotation files.
        view: ``clips``: every annotated segment is a row, read within its window. ``videos``:
            every untrimmed video is a row. ``localization``: the same, with its segments.

    Raises:
        UserError: a file is missing or of another form.
    """
    official = find_file(folder, "activity_net*.json")
    if official is not None:
        videos = read_database(official)
    else:
        patterns = ("anet_anno_action.json", "activity_net.v1-3.min.json")
        videos = _read_action(need_file(folder, *patterns, title="ActivityNet"), folder)
    classes = _activitynet_classes(folder, videos)
    if view == "clips":
        return as_clips(videos, classes)
    return as_videos(videos, classes, spans=view == "localization")


def _read_action(file: Path, folder: Path) -> list[Untrimmed]:
    """Read annotations by ``v_ID`` with the subsets from a table."""
    table = need_file(folder, "video_info_new.csv", title="ActivityNet")
    rows = read_table(table, ("video", "subset"), title="ActivityNet")
    subsets = {name: subset for _, (name, subset) in rows}
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} must map videos to their annotations")
    unknown = [name for name in content if name not in subsets]
    if unknown:
        raise UserError(f"{table} does not give the subset of {unknown[0]}, which {file} names")
    return [
        untrimmed(file, name.removeprefix("v_"), video, subset=subsets[name])
        for name, video in content.items()
    ]


def _activitynet_classes(folder: Path, videos: list[Untrimmed]) -> tuple[str, ...]:
    annotated = class_names(videos)
    file = find_file(folder, "action_name.csv")
    if file is None:
        return annotated
    names = tuple(line for _, line in read_lines(file))
    names = names[1:] if names[0] == "action" else names
    lacking = sorted(set(annotated) - set(names))
    if lacking:
        raise UserError(f"{file} lacks the class {lacking[0]!r}, which videos are annotated with")
    return names
