"""Which videos are cut from one source."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.entries import Entry

# Names that say so themselves: UCF101's v_Class_g01_c01, Kinetics' ID_000017_000027 and, in the
# folder of their class, those of HMDB51.
_KNOWN = re.compile(
    r"(?:^|/)(?:(?P<ucf101>v_\w+_g\d+)_c\d+|(?P<kinetics>.{11})_\d{6}_\d{6}"
    r"|(?P<kind>\w+)/(?P<hmdb51>[^/]+)_(?P=kind)_[a-z]+_(?:cm|nm)_np\d+_[a-z]+_[a-z]+_\d+)$"
)


def with_groups(entries: Sequence[Entry], regex: str | None = None) -> list[Entry]:
    """Give each entry the group of its source, where its name tells.

    Args:
        entries: their own groups, from a source that knows, are kept unless ``regex`` is given.
        regex: searched in the relative path without its suffix; what its groups capture, joined, or
            the whole match is the video's group. A video that does not match is its own group.
            Without it, names of UCF101, HMDB51 and Kinetics are known.

    Raises:
        UserError: ``regex`` is no regular expression, or matches no video at all.

    Example:
        >>> [e.group for e in with_groups([Entry(path="Run/v_Run_g07_c03.avi")])]
        ['v_Run_g07']
        >>> [e.group for e in with_groups([Entry(path="kick/set1_seq08_id2.avi")], r"set.*seq\\d+")]
        ['set1_seq08']
    """
    if regex is None:
        return [e if e.group else _with(e, known_source(e.path)[1]) for e in entries]
    pattern = group_pattern(regex)
    grouped = [_grouped(entry, pattern) for entry in entries]
    if not any(entry.group for entry in grouped):
        path = entries[0].path if entries else ""
        raise UserError(f"the group regex {regex!r} matches no video, for example not {path!r}")
    return grouped


def known_source(path: str) -> tuple[str, str]:
    """Return the data set that a video is of by its name, and its source; empty where not known.

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


def _grouped(entry: Entry, pattern: re.Pattern[str]) -> Entry:
    match = pattern.search(os.path.splitext(entry.path)[0])
    if match is None:
        return _with(entry, "")
    return _with(entry, "/".join(filter(None, match.groups())) or match[0])


def _with(entry: Entry, group: str) -> Entry:
    # Spelt out: `dataclasses.replace` takes seconds for a quarter of a million entries.
    return Entry(
        path=entry.path,
        split=entry.split,
        label=entry.label,
        name=entry.name,
        group=group,
        start=entry.start,
        end=entry.end,
        spans=entry.spans,
    )
