"""Kinetics-400 and Kinetics-600 by the official CSV files of a folder."""

from __future__ import annotations

import re
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.files import need_file
from vclr_lightning.data.indexing.kinetics_csv import listing_of_kinetics, read_kinetics
from vclr_lightning.data.indexing.listing import Listing
from vclr_lightning.data.indexing.video_files import Found

_PLAIN = ("train", "val", "validate", "validation", "test")


def listing_of_kinetics_folder(folder: Path, found: Found, *, classes: int) -> Listing:
    """Match the clips of a folder's CSV files with videos.

    The files are those with the number of classes in their names, such as
    ``kinetics-400_train.csv`` and ``k400_val.csv``; without any, ``train.csv``, ``val.csv`` or
    ``validate.csv`` and ``test.csv``.

    Args:
        folder: with the CSV files.
        found: the videos.
        classes: 400 or 600.

    Raises:
        UserError: there are no such files, or they are of another Kinetics.
    """
    files = kinetics_files(folder, classes=classes)
    clips = {file: read_kinetics(file) for file in files}
    labels = {clip.label for some in clips.values() for clip in some} - {None}
    if len(labels) > classes:
        raise UserError(
            f"{', '.join(file.name for file in files)} in {folder} name {len(labels)} classes, "
            f"which are not those of Kinetics-{classes}"
        )
    return listing_of_kinetics(clips, found)


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
