"""HACS: two-second clips by ``HACS_clips*.csv``, segments by ``HACS_segments*.json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.official import Named, Official, need_file, read_table
from vclr_lightning.data.datasets.untrimmed import (
    Annotation,
    Untrimmed,
    as_clips,
    as_videos,
    class_names,
    read_database,
    stems_of,
)
from vclr_lightning.data.indexing.listing import SPLIT_NAMES

VIEWS = ("clips", "segments", "videos", "localization")
_COLUMNS = ("classname", "youtube_id", "subset", "start", "end", "label")


class _Clip(NamedTuple):
    kind: str
    video: str
    split: str
    start: float
    end: float
    sign: str


def read_hacs(folder: Path, *, view: str = "clips") -> Official:
    """Read the annotations of HACS.

    Args:
        folder: with the annotation files; a view needs only the one it reads.
        view: ``clips``: every positive clip is a row, read within its window; negative ones are
            left out and counted. ``videos``: every video that has clips is a row, labelled with the
            class of most of its positive clips. ``segments``: every annotated segment is a
            row. ``localization``: every video with segments is a row, and keeps them.

    Raises:
        UserError: a file is missing or of another form.
    """
    if view in ("clips", "videos"):
        file = need_file(folder, "HACS_clips*.csv", title="HACS")
        clips = list(_clips(file))
        return _positive(clips) if view == "clips" else _videos(clips)
    videos = read_database(need_file(folder, "HACS_segments*.json", title="HACS"))
    classes = class_names(videos)
    if view == "segments":
        return as_clips(videos, classes)
    return as_videos(videos, classes, spans=True)


def _clips(file: Path) -> Iterator[_Clip]:
    for number, row in read_table(file, _COLUMNS, title="HACS clips"):
        kind, video, subset, first, last, sign = row
        split = SPLIT_NAMES.get(subset)
        try:
            start, end = float(first), float(last)
        except ValueError:
            split = None
        if split is None or not 0 <= start < end < math.inf:
            raise UserError(f"{file}, line {number}: expected {', '.join(_COLUMNS)}, not {row}")
        yield _Clip(kind, video, split, start, end, sign)


def _classes(clips: list[_Clip]) -> tuple[str, ...]:
    return tuple(sorted({clip.kind for clip in clips if clip.kind}))


def _positive(clips: list[_Clip]) -> Official:
    classes = _classes(clips)
    codes = {name: code for code, name in enumerate(classes)}
    left_out: Counter[str] = Counter()
    videos = []
    for clip in clips:
        if clip.sign == "-1":
            left_out["negative clips, which do not show their class"] += 1
            continue
        videos.append(
            Named(
                stems=stems_of(clip.video),
                split=clip.split,
                # A test set may be published without answers.
                label=codes[clip.kind] if clip.sign == "1" else -1,
                folder=clip.kind,
                name=f"{clip.video}_{clip.start:.2f}_{clip.end:.2f}",
                group=clip.video,
                start=clip.start,
                end=clip.end,
            )
        )
    return Official(videos=videos, classes=classes, left_out=left_out)


def _videos(clips: list[_Clip]) -> Official:
    by_video: dict[tuple[str, str], list[Annotation]] = {}
    for clip in clips:
        positive = by_video.setdefault((clip.video, clip.split), [])
        if clip.sign == "1":
            positive.append(Annotation(clip.start, clip.end, clip.kind))
    videos = [Untrimmed(name, split, tuple(a)) for (name, split), a in by_video.items()]
    return as_videos(videos, _classes(clips))
