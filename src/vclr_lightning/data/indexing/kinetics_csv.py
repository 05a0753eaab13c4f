"""Kinetics-400/600/700 by their official CSV files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_rows
from vclr_lightning.data.indexing.listing import SPLIT_NAMES, Entry, Listing, labels_of_names
from vclr_lightning.data.indexing.video_files import Found, same_name
from vclr_lightning.data.jobs.rejects import Rejected

REQUIRED = ("youtube_id", "time_start", "time_end", "split")


@dataclass(frozen=True, slots=True)
class Clip:
    """One line of a Kinetics CSV; the label is ``None`` in the files of the test splits."""

    youtube_id: str
    start: int
    end: int
    split: str
    label: str | None

    @property
    def stem(self) -> str:
        """The official file name without its suffix.

        Example:
            >>> Clip("0wR5jVB-WPk", 417, 427, "val", "abseiling").stem
            '0wR5jVB-WPk_000417_000427'
        """
        return f"{self.youtube_id}_{self.start:06d}_{self.end:06d}"


def read_kinetics(file: Path) -> list[Clip]:
    """Read columns ``youtube_id, time_start, time_end, split`` and, where present, ``label``.

    Raises:
        UserError: the file cannot be read, lacks a column, has a bad line, or is empty.
    """
    rows = read_rows(file)
    header = next(rows, (0, []))[1]
    if lacking := [name for name in REQUIRED if name not in header]:
        raise UserError(f"{file} is no Kinetics CSV: it lacks columns {', '.join(lacking)}")
    clips = [_clip(file, number, dict(zip(header, row, strict=False))) for number, row in rows]
    if not clips:
        raise UserError(f"the Kinetics CSV {file} names no videos")
    return clips


def _clip(file: Path, number: int, line: Mapping[str, str]) -> Clip:
    try:
        youtube_id, start, end, split = (line.get(name, "").strip() for name in REQUIRED)
        if not youtube_id or not split:
            raise ValueError
        label = line.get("label", "").strip() or None
        return Clip(
            youtube_id, round(float(start)), round(float(end)), SPLIT_NAMES.get(split, split), label
        )
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{file}, line {number}: expected {', '.join(REQUIRED)}, not {dict(line)}"
        ) from error


def listing_of_kinetics(
    files: Mapping[Path, Sequence[Clip]], found: Found, *, with_classes: bool = True
) -> Listing:
    """Match the clips of CSV files with the videos of a folder, by file name.

    A clip's file is ``ID_000417_000427`` with any video suffix, or else ``ID``, in any subfolder:
    class folders, with spaces or underscores, and flat or class folders per split all do. Of
    several files of one clip, one in a folder of its split and class is preferred.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in found.paths:
        by_stem[_stem(path)].append(path)
    chosen: dict[str, Clip] = {}
    rejected = []
    for file, clips in files.items():
        for clip in clips:
            paths = by_stem.get(clip.stem) or by_stem.get(clip.youtube_id)
            if not paths:
                reason = f"no such video; {file.name} lists it"
                rejected.append(Rejected(clip.stem, reason, split=clip.split))
                continue
            path = min(paths, key=lambda path: (-_agreement(path, clip), path))
            if path in chosen:
                rejected.append(Rejected(path, f"listed again by {file.name} ({clip.split})"))
            else:
                chosen[path] = clip
    # All classes of the files count, so that videos which are not there move no label.
    classes, _ = labels_of_names([c.label for clips in files.values() for c in clips])
    codes = {name: code for code, name in enumerate(classes)} if with_classes else {}
    entries = [
        Entry(
            path=path,
            split=clip.split,
            label=codes.get(clip.label or "", -1),
            name=clip.stem,
            group=clip.youtube_id,
        )
        for path, clip in chosen.items()
    ]
    return Listing(
        entries=entries,
        classes=tuple(codes),
        rejected=rejected,
        unlisted=len(found.paths) - len(chosen),
    )


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _agreement(path: str, clip: Clip) -> int:
    parts = path.split("/")[:-1]
    folders = [same_name(folder).replace("_", " ") for folder in parts]
    label = same_name(clip.label or "").replace("_", " ")
    of_split = any(SPLIT_NAMES.get(folder) == clip.split for folder in parts)
    return 2 * of_split + (label in folders)
