"""The videos that a source names, with splits, classes and groups, before any file is opened."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.video_files import Found, same_name
from vclr_lightning.data.jobs.journal import FileResult
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Row

_SPLITS = {
    "train": ("train", "training", "train_256"),
    "val": ("val", "valid", "validate", "validation", "val_256"),
    "test": ("test", "testing", "test_256"),
}
SPLIT_NAMES: Mapping[str, str] = {n: split for split, names in _SPLITS.items() for n in names}

# Names that contain the group: UCF101's v_Class_g01_c01, Kinetics' ID_000017_000027 and, in the
# folder of their class, those of HMDB51.
_KNOWN = re.compile(
    r"(?:^|/)(?:(?P<ucf101>v_\w+_g\d+)_c\d+|(?P<kinetics>.{11})_\d{6}_\d{6}"
    r"|(?P<kind>\w+)/(?P<hmdb51>[^/]+)_(?P=kind)_[a-z]+_(?:cm|nm)_np\d+_[a-z]+_[a-z]+_\d+)$"
)


@dataclass(kw_only=True)
class Listing:
    """All that one source names.

    Attributes:
        entries: rows of the videos, each path once, or of clips, each window once, with what the
            source knows of them; a name or group that it does not know is empty.
        classes: class names.
        rejected: what the source names but cannot be used.
        others: files in the folder whose names are not those of videos, counted by suffix.
        unlisted: videos in the folder that no list names.
        left_out: what is left out on purpose, counted by reason.
    """

    entries: list[Row]
    classes: tuple[str, ...] = ()
    rejected: list[Rejected] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def listing_of_folder(found: Found, *, with_classes: bool = True, split: str = "train") -> Listing:
    """List the videos of a folder.

    If all videos lie below folders of a split's name (``train``, ``validation``, ``test_256``
    and the like), these are the splits ``train``, ``val`` and ``test``; otherwise all videos belong
    to ``split``. The first folder below that is the class; a video directly in it has none.

    Example:
        >>> listing = listing_of_folder(Found(["train/run/a.mp4", "validation/run/b.mp4"]))
        >>> [(entry.split, entry.label) for entry in listing.entries], listing.classes
        ([('train', 0), ('val', 0)], ('run',))
    """
    parts = [path.split("/")[:-1] for path in found.paths]
    splits = all(part and part[0] in SPLIT_NAMES for part in parts)
    names = [part[int(splits) :] for part in parts]
    folders = [same_name(name[0]) if name and with_classes else None for name in names]
    classes, labels = labels_of_names(folders)
    entries = [
        Row(path=path, split=SPLIT_NAMES[part[0]] if splits else split, label=label)
        for path, part, label in zip(found.paths, parts, labels, strict=True)
    ]
    return Listing(entries=entries, classes=classes)


def labels_of_names(names: Sequence[str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Return the sorted class names, and each video's position among them (-1 for none).

    Example:
        >>> labels_of_names(["walk", None, "run"])
        (('run', 'walk'), [1, -1, 0])
    """
    classes = tuple(sorted({name for name in names if name is not None}))
    codes = {name: code for code, name in enumerate(classes)}
    return classes, [-1 if name is None else codes[name] for name in names]


def with_groups(entries: Sequence[Row], regex: str | None = None) -> list[Row]:
    """Give each entry the group of its source, where its name contains it.

    Args:
        entries: their own groups, from a source that knows, are kept unless ``regex`` is given.
        regex: searched in the relative path without its suffix; what its groups capture, joined, or
            the whole match is the video's group. A video that does not match is its own group.
            Without it, names of UCF101, HMDB51 and Kinetics are recognised.

    Raises:
        UserError: ``regex`` is no regular expression, or matches no video at all.

    Example:
        >>> [e.group for e in with_groups([Row(path="Run/v_Run_g07_c03.avi")])]
        ['v_Run_g07']
        >>> [e.group for e in with_groups([Row(path="kick/set1_seq08_id2.avi")], r"set.*seq\\d+")]
        ['set1_seq08']
    """
    if regex is None:
        return [e if e.group else _with_group(e, known_source(e.path)[1]) for e in entries]
    pattern = group_pattern(regex)
    grouped = []
    for entry in entries:
        match = pattern.search(os.path.splitext(entry.path)[0])
        group = "" if match is None else "/".join(filter(None, match.groups())) or match[0]
        grouped.append(_with_group(entry, group))
    if not any(entry.group for entry in grouped):
        path = entries[0].path if entries else ""
        raise UserError(f"the group regex {regex!r} matches no video, for example not {path!r}")
    return grouped


def one_group_per_file(
    root: Path, entries: Sequence[Row], results: Sequence[FileResult]
) -> Sequence[Row]:
    """Put all names of a file, by links, into one group, so that no split separates them."""
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for result in results:
        if result.values is not None:
            alike[result.size, result.mtime_ns].append(result.path)
    first: dict[tuple[int, int], str] = {}
    source: dict[str, str] = {}
    for path in sorted(path for paths in alike.values() if len(paths) > 1 for path in paths):
        with suppress(OSError):
            stat = os.stat(root / path)
            source[path] = first.setdefault((stat.st_dev, stat.st_ino), path)
    if len(first) == len(source):
        return entries
    return [e if e.group else _with_group(e, source.get(e.path, "")) for e in entries]


def known_source(path: str) -> tuple[str, str]:
    """Return the data set that a video belongs to by its name, and its group; empty if unknown.

    Example:
        >>> known_source("Run/v_Run_g07_c03.avi"), known_source("a.mp4")
        (('ucf101', 'v_Run_g07'), ('', ''))
        >>> known_source("sit/The_Film_sit_u_nm_np10_ba_med_0.avi")
        ('hmdb51', 'The_Film')
    """
    match = _KNOWN.search(os.path.splitext(path)[0])
    if match is None or match.lastgroup is None:
        return "", ""
    return match.lastgroup, match[match.lastgroup]


def group_pattern(regex: str) -> re.Pattern[str]:
    """Compile ``regex``.

    Raises:
        UserError: it is no regular expression.
    """
    try:
        return re.compile(regex)
    except re.error as error:
        raise UserError(f"the group regex {regex!r} is no regular expression: {error}") from error


def _with_group(entry: Row, group: str) -> Row:
    # `dataclasses.replace` takes seconds for a quarter of a million entries.
    values = {name: getattr(entry, name) for name in Row.__slots__}
    return Row(**values | {"group": group})
