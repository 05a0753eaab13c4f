"""HMDB51: a file ``CLASS_test_split1.txt`` for each of 51 classes and 3 splits."""

from __future__ import annotations

import re
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.files import need_file, read_lines
from vclr_lightning.data.datasets.matching import stem_of
from vclr_lightning.data.datasets.named import Named, Official

SPLITS = 3
_SETS = {"0": "unused", "1": "train", "2": "test"}


def read_hmdb51(folder: Path, *, split_number: int = 1) -> Official:
    """Read the files of one split.

    Each line is a video's name and 1 for the training set, 2 for the test set or 0 for neither,
    which becomes the split ``unused``. Classes are the files' names in alphabetical order; there
    is no official numbering. A group is all that is cut from one source, be it of one class or
    several: the part of the name before the class.

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
    """Return the part of a video's name that tells where it was cut from.

    Behind it stand the class and what is annotated: visible body part, camera motion, number of
    people, direction, quality and the number of the clip.

    Example:
        >>> source_of("TheBoondockSaints_sit_u_nm_np10_ba_med_0", "sit")
        'TheBoondockSaints'
    """
    rest = r"_[a-z]+_(?:cm|nm)_np\d+_[a-z]+_[a-z]+_\d+"
    match = re.fullmatch(rf"(.+)_{re.escape(kind)}{rest}", stem)
    return match[1] if match else stem
