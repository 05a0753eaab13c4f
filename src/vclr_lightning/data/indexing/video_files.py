"""Find videos below a folder."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.readers.image_folder import frame_pattern

_SUFFIXES = """
    264 265 3g2 3gp 3gp2 3gpp amv apng asf avi avs2 avs3 cine divx dv dvr-ms evo f4v flc fli flv gif
    gxf h261 h263 h264 h265 hevc ismv ivf lxf m1v m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mov mp4
    mpe mpeg mpg mpv mts mxf nsv nut nuv obu ogm ogv qt rm rmvb roq tod trp ts vc1 vob vro webm wmv
    wtv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())

# Unsupported kinds of video: without a header, not decoded by FFmpeg, or small copies of others.
_UNSUPPORTED = {
    *(".yuv", ".rgb", ".avif", ".heics", ".webp", ".braw", ".crm", ".r3d", ".swf"),
    *(".insv", ".lrv"),
}

_LISTED = 4096  # entries of a folder

# Folders of operating systems and archives.
_SYSTEM = {
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    *("__macosx", "network trash folder", "temporary items"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
}


@dataclass
class Found:
    """The videos below a root.

    Attributes:
        paths: videos, sorted, relative to the root.
        others: files whose names are not those of videos, counted by suffix.
        rejected: folders that cannot be listed.
        left_out: unsupported kinds of video, counted by reason.
    """

    paths: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_video_name(name: str) -> bool:
    """Return whether a name is that of a video; hidden files do not count.

    Example:
        >>> is_video_name("a.MP4"), is_video_name("._a.mp4"), is_video_name("a.txt")
        (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def same_name(name: str) -> str:
    """Return one spelling of names that look alike: macOS stores letters and accents separately.

    Example:
        >>> same_name("cafe\\u0301") == same_name("caf\\u00e9")
        True
    """
    return unicodedata.normalize("NFC", name)


def find_videos(
    root: Path, *, frames: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> Found:
    """Search ``root``, following links; hidden folders and those of the system are skipped.

    A folder with several names appears under each; a link to a parent folder is not followed.

    Args:
        root: an existing folder.
        frames: template of extracted frames; then each folder that directly contains such
            files is a video.
        progress: called with the number of videos found so far, once per folder and every few
            thousand of its entries.

    Raises:
        UserError: ``root`` itself cannot be listed.
    """
    pattern = None if frames is None else frame_pattern(frames)
    found = Found()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        below, above = pending.pop()
        here = root / below
        try:
            stat = here.stat()
            place = (stat.st_dev, stat.st_ino)
            if place in above:
                continue
            folders, files = _listing(here, below, found, progress)
        except OSError as error:
            if not below:
                raise UserError(f"cannot list {here}: {error.strerror}") from error
            found.rejected.append(Rejected(below, f"cannot be listed: {error.strerror}"))
            continue
        pending.extend((f"{below}{name}/", (*above, place)) for name in folders)
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
        for name in rest:
            suffix = os.path.splitext(name)[1].lower()
            found.others[suffix or name] += 1
            if pattern is None and suffix in _UNSUPPORTED:
                found.left_out[f"{suffix} file, a kind of video that is not read"] += 1
        progress(len(found.paths))
    found.paths.sort()
    return found


def _listing(
    folder: Path, below: str, found: Found, progress: Callable[[int], None]
) -> tuple[list[str], list[str]]:
    """Return the subfolders and files of a folder, without hidden ones and those of the system."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link to itself, or into a folder that cannot be listed
                reason = f"cannot be looked at: {error.strerror}"
                found.rejected.append(Rejected(below + entry.name, reason))
                continue
            if not is_folder:
                files.append(entry.name)
                if not len(files) % _LISTED:
                    progress(len(found.paths) + len(files))
            elif entry.name.lower() not in _SYSTEM:
                folders.append(entry.name)
    return folders, files
