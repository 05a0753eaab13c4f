"""ActivityNet 1.3, by its official JSON file or the form that localisation code uses."""

from __future__ import annotations

from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json
from vclr_lightning.data.datasets.files import (
    find_file,
    need_file,
    read_lines,
    read_table,
)
from vclr_lightning.data.datasets.named import Official
from vclr_lightning.data.datasets.untrimmed import (
    Untrimmed,
    as_clips,
    as_videos,
    class_names,
    read_database,
    untrimmed,
)

VIEWS = ("clips", "videos", "localization")


def read_activitynet(folder: Path, *, view: str = "clips") -> Official:
    """Read the annotations.

    Either ``activity_net.v1-3.min.json``, or ``anet_anno_action.json`` with
    ``video_info_new.csv``, which name fewer videos. Classes are in the order of
    ``action_name.csv``, where it is there, or else sorted.

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
    classes = _classes(folder, videos)
    if view == "clips":
        return as_clips(videos, classes)
    return as_videos(videos, classes, spans=view == "localization")


def _read_action(file: Path, folder: Path) -> list[Untrimmed]:
    """Read annotations by ``v_ID``, whose subsets a table tells."""
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


def _classes(folder: Path, videos: list[Untrimmed]) -> tuple[str, ...]:
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
