"""Annotated segments of untrimmed videos, read and validated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json
from vclr_lightning.data.datasets.official import find_file, need_file, read_table
from vclr_lightning.data.indexing.listing import SPLIT_NAMES
from vclr_lightning.functional.proposals import Floats


class LeftOut(NamedTuple):
    """A video or annotation that was left out or changed.

    Attributes:
        video: name.
        kind: such as ``"annotation left out"``; counted by kind.
        reason: why.
    """

    video: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """An untrimmed video with its annotated spans.

    Attributes:
        name: its id.
        split: ``train``, ``val`` or ``test``.
        duration: seconds; NaN where unknown.
        covered: seconds that its features cover, of which positions are shares.
        spans: start and end of each annotation in seconds, ``(g, 2)``.
        labels: their class names.
    """

    name: str
    split: str
    duration: float
    covered: float
    spans: Floats
    labels: tuple[str, ...]

    @property
    def shares(self) -> Floats:
        """The spans relative to ``covered``, 0 to 1, ``(g, 2)``."""
        return np.clip(self.spans / self.covered, 0.0, 1.0)


def read_annotations(source: str | Path | Mapping[str, str | Path]) -> list[AnnotatedVideo]:
    """Read annotations in ActivityNet's form, or in that of localisation code.

    Args:
        source: ``activity_net.v1-3.min.json`` or another file with a ``database``; a file that maps
            ``v_ID`` to videos (``anet_anno_action.json``) with their splits in
            ``video_info_new.csv`` beside it; a folder with either; or a file of such videos for
            each split, as ``{"train": "anet_anno_train.json", "val": "anet_anno_val.json"}``.

    Raises:
        UserError: a file cannot be read or is of another form.
    """
    if isinstance(source, Mapping):
        return [
            video
            for split, file in source.items()
            for video in _flat(Path(file), read_json(Path(file)), split=split)
        ]
    file = Path(source).expanduser()
    if file.is_dir():
        official = find_file(file, "activity_net*.json")
        file = official or need_file(file, "anet_anno_action.json", title="ActivityNet")
    content = read_json(file)
    if isinstance(content, dict) and "database" in content:
        database = content["database"]
        if not isinstance(database, dict):
            raise UserError(f"{file} has no 'database' of videos; give the official file")
        return [_video(file, name, video, split=None) for name, video in database.items()]
    return list(_flat(file, content, split=None))


def _flat(file: Path, content: Any, *, split: str | None) -> Iterator[AnnotatedVideo]:
    if not isinstance(content, dict):
        raise UserError(f"{file} must map videos to their annotations")
    subsets = {}
    if split is None:
        table = file.with_name("video_info_new.csv")
        if not table.is_file():
            raise UserError(
                f"{file} does not say which videos are for training, nor does "
                "video_info_new.csv beside it; give a file for each split, as "
                "annotations='{train: FILE, val: FILE}'"
            )
        rows = read_table(table, ("video", "subset"), title="ActivityNet")
        subsets = {name: subset for _, (name, subset) in rows}
    for name, video in content.items():
        yield _video(
            file, name.removeprefix("v_"), video, split=split, subset=subsets.get(name, "")
        )


def _video(
    file: Path, name: str, video: Any, *, split: str | None, subset: str = ""
) -> AnnotatedVideo:
    try:
        if split is None:
            split = SPLIT_NAMES.get(str(video.get("subset", subset)))
        annotations = list(video.get("annotations", ()))
        spans = [(float(start), float(end)) for a in annotations for start, end in [a["segment"]]]
        duration = float(video.get("duration", video.get("duration_second", math.nan)))
        covered = duration
        if video.get("feature_frame") and video.get("duration_frame"):
            covered *= float(video["feature_frame"]) / float(video["duration_frame"])
        labels = tuple(str(a.get("label", "")).strip() for a in annotations)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: the annotations of {name} are not segments with a label"
        ) from error
    if split is None:
        raise UserError(f"{file}: {name} is of no known subset, such as training")
    return AnnotatedVideo(
        name=name,
        split=split,
        duration=duration,
        covered=covered,
        spans=np.array(spans, dtype=np.float64).reshape(-1, 2),
        labels=labels,
    )


def checked(videos: Sequence[AnnotatedVideo]) -> tuple[list[AnnotatedVideo], list[LeftOut]]:
    """Leave out impossible annotations, clip those that exceed their video, and report both.

    Videos without a duration are left out, as are annotations that end before they start or lie
    outside of the video.

    Example:
        >>> spans = np.array([[5.0, 2.0], [1.0, 3.0], [8.0, 12.0]])
        >>> video = AnnotatedVideo(
        ...     name="a", split="val", duration=10.0, covered=10.0, spans=spans, labels=("x",) * 3
        ... )
        >>> (kept,), left_out = checked([video])
        >>> kept.spans.tolist(), [item.kind for item in left_out]
        ([[1.0, 3.0], [8.0, 10.0]], ['annotation left out', 'annotation cut'])
    """
    kept, left_out = [], []
    for video in videos:
        if not (math.isfinite(video.covered) and video.covered > 0):
            reason = f"its duration is {video.duration} s"
            left_out.append(LeftOut(video.name, "video left out", reason))
            continue
        good = []
        for number, (start, end) in enumerate(video.spans.tolist()):
            reason, fits = _judge(start, end, video.duration)
            if reason:
                kind = "annotation cut" if fits else "annotation left out"
                left_out.append(LeftOut(video.name, kind, f"{start:g} s to {end:g} s {reason}"))
            if fits:
                good.append(number)
        kept.append(
            replace(
                video,
                spans=np.clip(video.spans[good], 0.0, video.duration),
                labels=tuple(video.labels[number] for number in good),
            )
        )
    return kept, left_out


def _judge(start: float, end: float, duration: float) -> tuple[str, bool]:
    """Return what is wrong with a span, if anything, and whether part of it can be kept."""
    if not (math.isfinite(start) and math.isfinite(end)):
        return "is no time", False
    if end <= start:
        return "ends before or when it starts", False
    if start >= duration or end <= 0:
        return f"lies outside of the video, which lasts {duration:g} s", False
    if start < 0 or end > duration:
        return f"reaches past the video, which lasts {duration:g} s", True
    return "", True
