"""Kinetics-400, 600 and 700 by their official CSV files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_rows
from vclr_lightning.data.datasets.official import Named, Official, need_file
from vclr_lightning.data.indexing.listing import SPLIT_NAMES, labels_of_names

_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
_PLAIN = ("train", "val", "validate", "validation", "test")


def read_kinetics_folder(folder: Path, *, classes: int) -> Official:
    """Read a folder's CSV files.

    The files are those with the number of classes in their names, such as
    ``kinetics-400_train.csv`` and ``k400_val.csv``; without any, ``train.csv``, ``val.csv`` or
    ``validate.csv`` and ``test.csv``.

    Args:
        folder: with the CSV files.
        classes: 400 or 600.

    Raises:
        UserError: there are no such files, or they are of another Kinetics.
    """
    files = kinetics_files(folder, classes=classes)
    official = read_kinetics(*files)
    if len(official.classes) > classes:
        raise UserError(
            f"{', '.join(file.name for file in files)} in {folder} name {len(official.classes)} "
            f"classes, which are not those of Kinetics-{classes}"
        )
    return official


def kinetics_files(folder: Path, *, classes: int) -> list[Path]:
    """Return the CSV files of one Kinetics.

    Raises:
        UserError: there are none.
    """
    files = sorted(folder.glob("*.csv"))
    numbered = [file for file in files if re.search(rf"(?<!\d){classes}(?!\d)", file.stem)]
    plain = [file for file in files if file.stem in _PLAIN]
    if not numbered and not plain:
        need_file(folder, f"*{classes}*.csv", "train.csv", "val.csv", title=f"Kinetics-{classes}")
    return numbered or plain


def read_kinetics(*files: Path) -> Official:
    """Read columns ``youtube_id, time_start, time_end, split`` and, where present, ``label``.

    A clip's file is ``ID_000417_000427`` with any video suffix, or else ``ID``. All classes of the
    files count, so that missing videos do not change labels.

    Raises:
        UserError: a file cannot be read, lacks a column, has a bad line, or is empty.
    """
    clips = [(file, *clip) for file in files for clip in _clips(file)]
    classes, labels = labels_of_names([name or None for *_, name in clips])
    videos = [
        Named(
            stems=(stem, youtube_id),
            split=split,
            label=label,
            folder=name,
            name=stem,
            group=youtube_id,
            listed_by=file.name,
        )
        for (file, youtube_id, stem, split, name), label in zip(clips, labels, strict=True)
    ]
    return Official(videos=videos, classes=classes)


def _clips(file: Path) -> list[tuple[str, str, str, str]]:
    """Return id, file name without suffix, split and class (empty for none) of each clip."""
    rows = read_rows(file)
    header = next(rows, (0, []))[1]
    if lacking := [name for name in _COLUMNS if name not in header]:
        raise UserError(f"{file} is no Kinetics CSV: it lacks columns {', '.join(lacking)}")
    clips = [_clip(file, number, dict(zip(header, row, strict=False))) for number, row in rows]
    if not clips:
        raise UserError(f"the Kinetics CSV {file} names no videos")
    return clips


def _clip(file: Path, number: int, line: Mapping[str, str]) -> tuple[str, str, str, str]:
    try:
        youtube_id, start, end, split = (line.get(name, "").strip() for name in _COLUMNS)
        if not youtube_id or not split:
            raise ValueError
        stem = f"{youtube_id}_{round(float(start)):06d}_{round(float(end)):06d}"
        return youtube_id, stem, SPLIT_NAMES.get(split, split), line.get("label", "").strip()
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{file}, line {number}: expected {', '.join(_COLUMNS)}, not {dict(line)}"
        ) from error
