"""What a source of videos yields, before any file is opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vclr_lightning.data.manifest.schema import Span


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


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that cannot be used, why, and what it looked like when it was tried.

    Attributes:
        path: relative to the root; a video that is not there goes by its name.
        reason: in words.
        size: bytes; -1 where there is no file, or it was not looked at.
        mtime_ns: time of its last change, likewise.
        split: that it would be of, where that is known.
        ctime_ns: when the file was last written, repaired or given other rights; a file system
            changes it whatever time the file is then given.
    """

    path: str
    reason: str
    size: int = -1
    mtime_ns: int = -1
    split: str = ""
    ctime_ns: int = -1

    @property
    def lost(self) -> bool:
        """Whether a video is missing by it; one that is listed twice is there once."""
        return not self.reason.startswith("listed again")


@dataclass(kw_only=True)
class Listing:
    """All that one source yields.

    Attributes:
        entries: the videos, each path once, or clips of them, each window once.
        classes: class names.
        rejected: what the source names but cannot be used.
        others: files in the folder that are no videos by their name, counted by suffix.
        unlisted: videos in the folder that no list names.
        left_out: what is not wanted, counted by why.
    """

    entries: list[Entry]
    classes: tuple[str, ...] = ()
    rejected: list[Rejected] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
