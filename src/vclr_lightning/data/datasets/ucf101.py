"""UCF101: ``classInd.txt`` and three pairs of ``trainlist01.txt``, ``testlist01.txt``."""

from __future__ import annotations

import re
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.files import need_file, read_lines
from vclr_lightning.data.datasets.matching import stem_of
from vclr_lightning.data.datasets.named import Named, Official
from vclr_lightning.data.indexing.lists import read_list

SPLITS = 3


def read_ucf101(folder: Path, *, split_number: int = 1) -> Official:
    """Read the lists of one split.

    Classes are in the order of ``classInd.txt``, which counts from 1, and labels count from 0. A
    video's class is its folder in the list. Groups are those in the names, ``g01`` of each class.

    Args:
        folder: with the official lists.
        split_number: 1, 2 or 3.

    Raises:
        UserError: a file is missing, or names a class that there is none of.
    """
    file = need_file(folder, "[cC]lass[iI]nd.txt", title="UCF101")
    classes = _classes(file)
    videos = []
    for split in ("train", "test"):
        names = f"{split}list{split_number:02d}.txt"
        listed = need_file(folder, names, title="UCF101")
        for number, line in read_list(listed):
            where = f"{listed}, line {number}"
            kind = line.path.replace("\\", "/").split("/")[-2:-1]
            label = classes.index(kind[0]) if kind and kind[0] in classes else None
            if line.label is not None and not 1 <= line.label <= len(classes):
                raise UserError(f"{where}: there is no class {line.label} in {file}")
            if label is None and line.label is not None:
                label = line.label - 1
            if label is None:
                raise UserError(f"{where}: no class of {file} is the folder of {line.path}")
            if line.label not in (None, label + 1):
                raise UserError(f"{where}: class {line.label} is not the folder of {line.path}")
            stem = stem_of(line.path)
            group = re.fullmatch(r"(.+_g\d+)_c\d+", stem)
            videos.append(
                Named(
                    stems=(stem,),
                    split=split,
                    label=label,
                    folder=classes[label],
                    group=group[1] if group else "",
                )
            )
    return Official(videos=videos, classes=classes)


def _classes(file: Path) -> tuple[str, ...]:
    numbered = {}
    for number, line in read_lines(file):
        match = re.fullmatch(r"(\d{1,9})\s+(.*)", line)
        if match is None:
            raise UserError(f"{file}, line {number}: expected a number and a class, not {line!r}")
        numbered[int(match[1])] = match[2]
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise UserError(f"{file} does not number its classes from 1 to {len(numbered)}")
    return tuple(numbered[number] for number in sorted(numbered))
