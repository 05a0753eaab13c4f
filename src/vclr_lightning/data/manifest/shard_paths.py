"""Paths of videos in shards, which contain their position in the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_STORED = re.compile(r"(.*?)(\d{6,}\.tar)/(\d{13})-(\d+)/.")


class ShardPlace(NamedTuple):
    """The part of a shard that is a video.

    Attributes:
        folder: of the shard, as far as the path contains it.
        shard: name of the shard.
        start: position of the video's first byte.
        size: bytes.
    """

    folder: str
    shard: str
    start: int
    size: int


def shard_name(number: int) -> str:
    """Return the file name of a shard.

    Example:
        >>> shard_name(12)
        '000012.tar'
    """
    return f"{number:06d}.tar"


def stored_path(shard: str, start: int, size: int, path: str) -> str:
    """Return the path of a row whose video is stored in a shard.

    Paths sort in the order of the videos in the shards.

    Args:
        shard: its name.
        start: position of the video's first byte.
        size: bytes.
        path: of the video before it was stored.

    Example:
        >>> stored_path("000012.tar", 512, 190233, "run/a.mp4")
        '000012.tar/0000000000512-190233/run/a.mp4'
    """
    return f"{shard}/{start:013d}-{size}/{path}"


def shard_place(path: Path | str) -> ShardPlace | None:
    """Return where a video is stored, or ``None`` if the path is not in a shard.

    Example:
        >>> shard_place("/data/000012.tar/0000000000512-190233/run/a.mp4")
        ShardPlace(folder='/data/', shard='000012.tar', start=512, size=190233)
    """
    match = _STORED.match(path if isinstance(path, str) else path.as_posix())
    if match is None:
        return None
    return ShardPlace(match[1], match[2], int(match[3]), int(match[4]))
