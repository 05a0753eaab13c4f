"""The videos that a source names, with splits, classes and groups, before any file is opened."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.video_files import Found, same_name
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Span

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A video that a source names, or a clip inside of a longer video.

    Attributes:
        path: relative to the root, with ``/``.
        split: such as ``train``.
        label: position in the listing's classes, -1 for none.
        name: the video's id, where it is not the file's stem.
        group: where the source knows it.
        start: where a clip begins, in seconds (of a folder of frames, in frames).
        end: where it ends; both ``None`` for the whole file.
        spans: what is annotated within the video.
    """

    path: str
    split: str = "train"
    label: int = -1
    name: str = ""
    group: str = ""
    start: float | None = None
    end: float | None = None
    spans: tuple[Span, ...] = ()


@dataclass(kw_only=True)
class Listing:
    """All that one source names.

    Attributes:
        entries: the videos, each path once, or clips of them, each window once.
        classes: class names.
        rejected: what the source names but cannot be used.
        others: files in the folder whose names are not those of videos, counted by suffix.
        unlisted: videos in the folder that no list names.
        left_out: what is left out on purpose, counted by reason.
    """

    entries: list[Entry]
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
        Entry(path=path, split=SPLIT_NAMES[part[0]] if splits else split, label=label)
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


def with_groups(entries: Sequence[Entry], regex: str | None = None) -> list[Entry]:
    """Give each entry the group of its source, where its name contains it.

    Args:
        entries: their own groups, from a source that knows, are kept unless ``regex`` is given.
        regex: searched in the relative path without its suffix; what its groups capture, joined, or
            the whole match is the video's group. A video that does not match is its own group.
            Without it, names of UCF101, HMDB51 and Kinetics are recognised.

    Raises:
        UserError: ``regex`` is no regular expression, or matches no video at all.

    Example:
        >>> [e.group for e in with_groups([Entry(path="Run/v_Run_g07_c03.avi")])]
        ['v_Run_g07']
        >>> [e.group for e in with_groups([Entry(path="kick/set1_seq08_id2.avi")], r"set.*seq\\d+")]
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


def _with_group(entry: Entry, group: str) -> Entry:
    # `dataclasses.replace` takes seconds for a quarter of a million entries.
    values = {name: getattr(entry, name) for name in Entry.__slots__}
    return Entry(**values | {"group": group})
