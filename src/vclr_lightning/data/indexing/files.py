"""Find videos below a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.readers.image_folder import frame_pattern

_SUFFIXES = """
    3g2 3gp asf avi divx f4v flv gif h264 h265 hevc ivf m2ts m2v m4v mjpeg mkv mov mp4 mpeg mpg mts
    mxf ogm ogv ts vob webm wmv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


@dataclass
class Found:
    """Videos found, as sorted paths relative to the root, and other files by suffix."""

    paths: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def is_video_name(name: str) -> bool:
    """Return whether a file is a video by its name; hidden files are none.

    Example:
        >>> is_video_name("a.MP4"), is_video_name("._a.mp4"), is_video_name("a.txt")
        (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def find_videos(
    root: Path, *, frames: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> Found:
    """Walk ``root``, links followed, hidden folders left out.

    Args:
        root: an existing folder.
        frames: template of extracted frames; then each folder that directly holds such files is a
            video.
        progress: called with the number of videos found so far, once per folder.

    Raises:
        UserError: a folder cannot be listed.
    """
    pattern = None if frames is None else frame_pattern(frames)
    found = Found()
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        below = pending.pop()
        here = root / below
        stat = here.stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link back to a folder above
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders, files = _listing(here)
        pending.extend(f"{below}{name}/" for name in folders if not name.startswith("."))
        if pattern is None:
            rest = []
            for name in files:
                if is_video_name(name):
                    found.paths.append(below + name)
                else:
                    rest.append(name)
        else:
            rest = [name for name in files if not pattern.fullmatch(name)]
            if below and len(rest) < len(files):
                found.paths.append(below.rstrip("/"))
        found.others.update(os.path.splitext(name)[1].lower() or name for name in rest)
        progress(len(found.paths))
    found.paths.sort()
    return found


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error
    return folders, files
