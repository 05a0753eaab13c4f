"""Lists and label maps as mmaction2's tools write them."""

from __future__ import annotations

import re
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets.official import find_file, need_file, read_lines
from vclr_lightning.data.indexing.listing import Listing
from vclr_lightning.data.indexing.video_files import Found, is_video_name, same_name
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Row

VIEWS = ("plain", "offset")
_CLASSES = 100_000  # at most, without a label map
_SPLITS = ("train", "val", "test")


def listing_of_mmaction2(
    folder: Path, found: Found, *, split_number: int = 1, view: str = "plain", frames: bool = False
) -> Listing:
    """Read ``*train*.txt``, ``*val*.txt`` and ``*test*.txt``, and ``*label_map*.txt`` for names.

    Lines are ``path label`` for videos and ``path frames label`` for folders of frames, or, with
    the view ``offset``, ``path offset frames label``: a clip that begins ``offset`` frames into its
    folder. A line with several labels is refused. Paths are relative to the root.

    Args:
        folder: with the lists; those whose names show another split, or frames where videos are
            wanted, are skipped.
        found: the videos, or folders of frames.
        split_number: of lists with ``split_1`` and the like in their names.
        view: ``plain`` or ``offset``.
        frames: whether the videos are folders of frames.

    Raises:
        UserError: there is no such list, there are several, or a line is of another form.
    """
    if view == "offset" and not frames:
        raise UserError("offsets count frames, so view=offset needs the frames' template")
    names = _label_map(folder)
    here = {same_name(path): path for path in found.paths}
    entries: dict[tuple[str, float | None, float | None], Row] = {}
    rejected, numbers = [], set()
    for split, file in _lists(folder, split_number, frames).items():
        for number, line in read_lines(file):
            path, start, end, label = _parse(line, view, f"{file}, line {number}")
            if names and label >= len(names):
                raise UserError(f"{file}, line {number}: class {label} is not in the label map")
            real = here.get(same_name(path))
            place = (real or "", start, end)
            if real is None:
                rejected.append(Rejected(path, "no such video", split=split))
            elif place in entries:
                rejected.append(Rejected(path, f"listed again by {file.name}, line {number}"))
            else:
                entries[place] = Row(path=real, split=split, label=label, start=start, end=end)
            numbers.add(label)
    if not names and max(numbers) > _CLASSES:
        raise UserError(f"the lists in {folder} have class {max(numbers)}, but no label map")
    classes = names or tuple(str(number) for number in range(max(numbers) + 1))
    return Listing(
        entries=list(entries.values()),
        classes=classes,
        rejected=rejected,
        unlisted=len(here) - len({path for path, _, _ in entries}),
    )


def _parse(line: str, view: str, where: str) -> tuple[str, float | None, float | None, int]:
    match = re.fullmatch(r"(\S.*?)((?:\s+\d{1,9})*)", line)
    assert match is not None  # any stripped line that is not blank
    path, numbers = match[1].removesuffix("/"), [int(number) for number in match[2].split()]
    expected = 1 if is_video_name(path) else 3 if view == "offset" else 2
    if len(numbers) != expected:
        form = {1: "path label", 2: "path frames label", 3: "path offset frames label"}[expected]
        raise UserError(
            f"{where}: expected `{form}`, not {line!r}; lists of several labels a video are not "
            "read, and offsets need view=offset"
        )
    if view == "offset":
        return path, float(numbers[0]), float(numbers[0] + numbers[1]), numbers[-1]
    return path, None, None, numbers[-1]


def _lists(folder: Path, split_number: int, frames: bool) -> dict[str, Path]:
    wanted, other = ("rawframes", "videos") if frames else ("videos", "rawframes")
    lists: dict[str, Path] = {}
    for split in _SPLITS:
        files = [
            file
            for file in sorted(folder.glob("*.txt"))
            if re.search(rf"(?<![a-z]){split}", file.stem) and "label_map" not in file.stem
        ]
        numbered = {file: re.search(r"split_?(\d+)", file.stem) for file in files}
        files = [f for f in files if (n := numbered[f]) is None or int(n[1]) == split_number]
        files = [f for f in files if wanted in f.stem] or [f for f in files if other not in f.stem]
        if len(files) > 1:
            named = ", ".join(file.name for file in files)
            raise UserError(
                f"{folder} has several lists of the split {split}: {named}; keep one of them there"
            )
        if files:
            lists[split] = files[0]
    if not lists:
        file = need_file(folder, *(f"*{split}*.txt" for split in _SPLITS), title="mmaction2")
        raise UserError(
            f"{folder} has no list of split {split_number} for {wanted}, but {file.name}"
        )
    return lists


def _label_map(folder: Path) -> tuple[str, ...]:
    file = find_file(folder, "*label_map*.txt")
    return tuple(line for _, line in read_lines(file)) if file else ()
