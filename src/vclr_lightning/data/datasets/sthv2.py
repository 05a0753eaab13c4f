"""Something-Something-v2: ``labels.json``, ``train.json``, ``validation.json``, ``test.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_json
from vclr_lightning.data.datasets.files import find_file, need_file, read_lines
from vclr_lightning.data.datasets.named import Named, Official

_FILES = {"train": "*train*.json", "val": "*validation*.json", "test": "*test.json"}


def read_sthv2(folder: Path) -> Official:
    """Read the files of all splits that are there.

    Files are named as published, ``labels.json`` or ``something-something-v2-labels.json`` and so
    on. A video's class is its template without the brackets, numbered by the labels file. Videos of
    the test split get theirs from ``test-answers.csv``, ``id;template`` a line, if it is there.

    Raises:
        UserError: the labels or all splits are missing, or a template is no class.
    """
    file = need_file(folder, "*labels.json", title="Something-Something-v2")
    classes = _classes(file)
    codes = {name: code for code, name in enumerate(classes)}
    found = {split: find_file(folder, pattern) for split, pattern in _FILES.items()}
    if not any(found.values()):
        need_file(folder, *_FILES.values(), title="Something-Something-v2")
    answers_file = find_file(folder, "*test-answers.csv")
    answers = _answers(answers_file) if answers_file and found["test"] else {}
    videos = []
    for split, source in found.items():
        if source is None:
            continue
        for number, video in enumerate(_list(source), 1):
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


def _classes(file: Path) -> tuple[str, ...]:
    content = read_json(file)
    try:
        numbered = {int(code): str(name).strip() for name, code in content.items()}
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{file} must map class names to their numbers") from error
    if sorted(numbered) != list(range(len(content))):
        raise UserError(f"{file} does not number its classes from 0 to {len(content) - 1}")
    return tuple(numbered[code] for code in range(len(content)))


def _list(file: Path) -> list[Mapping[str, Any]]:
    content = read_json(file)
    if not isinstance(content, list) or not all(
        isinstance(video, dict) and "id" in video for video in content
    ):
        raise UserError(f"{file} must be a list of videos, each with its id")
    return content


def _answers(file: Path) -> dict[str, str]:
    answers = {}
    for number, line in read_lines(file):
        name, separator, template = line.partition(";")
        if not separator:
            raise UserError(f"{file}, line {number}: expected id;template, not {line!r}")
        answers[name.strip()] = template.strip()
    return answers
