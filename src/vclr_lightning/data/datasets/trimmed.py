"""Data sets of trimmed videos: UCF101, HMDB51, Something-Something-v2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json
from vclr_lightning.data.datasets.match_videos import stem_of
from vclr_lightning.data.datasets.official import (
    Named,
    Official,
    find_file,
    need_file,
    read_lines,
)
from vclr_lightning.data.indexing.lists import read_list

_SETS = {"0": "unused", "1": "train", "2": "test"}
_STHV2_FILES = {"train": "*train*.json", "val": "*validation*.json", "test": "*test.json"}


def read_ucf101(folder: Path, *, split_number: int = 1) -> Official:
    """Read UCF101's lists of one split: ``classInd.txt``, ``trainlist01.txt``, ``testlist01.txt``.

    Classes are in the order of ``classInd.txt``, which counts from 1, and labels count from 0. A
    video's class is its folder in the list. Groups are those in the names, ``g01`` of each class.

    Args:
        folder: with the official lists.
        split_number: 1, 2 or 3.

    Raises:
        UserError: a file is missing, or names an unknown class.
    """
    file = need_file(folder, "[cC]lass[iI]nd.txt", title="UCF101")
    classes = _ucf101_classes(file)
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


def _ucf101_classes(file: Path) -> tuple[str, ...]:
    numbered = {}
    for number, line in read_lines(file):
        match = re.fullmatch(r"(\d{1,9})\s+(.*)", line)
        if match is None:
            raise UserError(f"{file}, line {number}: expected a number and a class, not {line!r}")
        numbered[int(match[1])] = match[2]
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise UserError(f"{file} does not number its classes from 1 to {len(numbered)}")
    return tuple(numbered[number] for number in sorted(numbered))


def read_hmdb51(folder: Path, *, split_number: int = 1) -> Official:
    """Read HMDB51's files of one split, ``CLASS_test_split1.txt``.

    Each line is a video's name and 1 for the training set, 2 for the test set or 0 for neither,
    which becomes the split ``unused``. Classes are the files' names in alphabetical order; there
    is no official numbering. A group is everything cut from one source, of any class: the part of
    the name before the class.

    Args:
        folder: with the official files.
        split_number: 1, 2 or 3.

    Raises:
        UserError: a file is missing or has a line of another form.
    """
    ending = f"_test_split{split_number}.txt"
    files = {file.name.removesuffix(ending): file for file in sorted(folder.glob(f"*{ending}"))}
    if not files:
        need_file(folder, f"*{ending}", title="HMDB51")
    classes = tuple(sorted(files))
    videos = []
    for label, name in enumerate(classes):
        for number, line in read_lines(files[name]):
            parts = line.rsplit(None, 1)
            if len(parts) != 2 or parts[1] not in _SETS:
                raise UserError(
                    f"{files[name]}, line {number}: expected a name and 0, 1 or 2, not {line!r}"
                )
            stem = stem_of(parts[0])
            videos.append(
                Named(
                    stems=(stem,),
                    split=_SETS[parts[1]],
                    label=label,
                    folder=name,
                    group=source_of(stem, name),
                )
            )
    return Official(videos=videos, classes=classes, loose=True)


def source_of(stem: str, kind: str) -> str:
    """Return the source in a video's name, which precedes the class and the annotations: visible
    body part, camera motion, number of people, direction, quality, number of the clip.

    Example:
        >>> source_of("TheBoondockSaints_sit_u_nm_np10_ba_med_0", "sit")
        'TheBoondockSaints'
    """
    rest = r"_[a-z]+_(?:cm|nm)_np\d+_[a-z]+_[a-z]+_\d+"
    match = re.fullmatch(rf"(.+)_{re.escape(kind)}{rest}", stem)
    return match[1] if match else stem


def read_sthv2(folder: Path) -> Official:
    """Read Something-Something-v2: ``labels.json`` and the files of all splits that exist.

    Files are named as published, ``labels.json`` or ``something-something-v2-labels.json`` and so
    on. A video's class is its template without the brackets, numbered by the labels file. Those of
    the test split come from ``test-answers.csv``, ``id;template`` a line, where it exists.

    Raises:
        UserError: the labels or all splits are missing, or a template is no class.
    """
    file = need_file(folder, "*labels.json", title="Something-Something-v2")
    classes = _sthv2_classes(file)
    codes = {name: code for code, name in enumerate(classes)}
    found = {split: find_file(folder, pattern) for split, pattern in _STHV2_FILES.items()}
    if not any(found.values()):
        need_file(folder, *_STHV2_FILES.values(), title="Something-Something-v2")
    answers_file = find_file(folder, "*test-answers.csv")
    answers = _sthv2_answers(answers_file) if answers_file and found["test"] else {}
    videos = []
    for split, source in found.items():
        if source is None:
            continue
        for number, video in enumerate(_sthv2_list(source), 1):
            name = str(video["id"])
            template = str(video.get("template") or "") or (
                answers.get(name) if split == "test" else None
            )
            kind = None if not template else template.replace("[", "").replace("]", "").strip()
            if kind is not None and kind not in codes:
                raise UserError(f"{source}, video {number}: no class of {file} is {kind!r}")
            label = -1 if kind is None else codes[kind]
            videos.append(Named(stems=(name,), split=split, label=label))
    return Official(videos=videos, classes=classes)


def _sthv2_classes(file: Path) -> tuple[str, ...]:
    content = read_json(file)
    try:
        numbered = {int(code): str(name).strip() for name, code in content.items()}
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{file} must map class names to their numbers") from error
    if sorted(numbered) != list(range(len(content))):
        raise UserError(f"{file} does not number its classes from 0 to {len(content) - 1}")
    return tuple(numbered[code] for code in range(len(content)))


def _sthv2_list(file: Path) -> list[Mapping[str, Any]]:
    content = read_json(file)
    if not isinstance(content, list) or not all(
        isinstance(video, dict) and "id" in video for video in content
    ):
        raise UserError(f"{file} must be a list of videos, each with its id")
    return content


def _sthv2_answers(file: Path) -> dict[str, str]:
    answers = {}
    for number, line in read_lines(file):
        name, separator, template = line.partition(";")
        if not separator:
            raise UserError(f"{file}, line {number}: expected id;template, not {line!r}")
        answers[name.strip()] = template.strip()
    return answers
