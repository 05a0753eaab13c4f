"""Look at one video: decode a few frames at several places, and measure them."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.data.protocols import (
    FRAME_SLACK,
    LEAST_SHARE,
    FrameCountChangedError,
    VideoError,
)
from vclr_lightning.data.readers import ImageFolderReader, PyAVReader, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.jobs import FileResult
    from vclr_lightning.data.protocols import OpenVideo

MARKS = 5
"""Frames of a video that are measured, in the middle of as many equal parts."""

SIDE = 8
"""Rows and columns of a thumbnail."""

_DRAWN = 3  # further frames, which are only decoded
_FINE = 32  # rows and columns in which motion is looked for
_LARGEST = 256  # pixels of a side; larger pictures are thinned before they are measured
_UNEVEN = 0.2  # of the usual distance between frames, by which another one is uneven


def examine(
    item: tuple[FileResult, bool, bool], *, root: Path, frames: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Decode frames in the middle of five equal parts, three at random, and the last one.

    Args:
        item: the file, below ``root``; whether to hash its content; and whether to probe it first,
            as indexing does, since it is not the file that was indexed.
        root: folder of the videos.
        frames: file name template, where videos are folders of frames.
        seed: of the places drawn at random, which also depend on the path.

    Returns:
        ``num_frames``; ``promised``, if the container promised another number; ``uneven``: share of
        the distances between frames that differ from the usual one; of each measured frame,
        ``light`` (mean luminance) and ``spread`` (its standard deviation), ``colour`` (mean
        distance between the largest and the smallest channel), all 0 to 255; ``motion``: the
        largest change in a 1024th of the picture; ``thumbnails``, in hexadecimal; ``seconds``: CPU
        time; ``digest``.

    Raises:
        VideoError: the video cannot be read at one of these places, or breaks off.
    """
    file, hashed, changed = item
    path = root / file.path
    if changed and frames is None:
        probe(path)
    reader: Any = PyAVReader() if frames is None else ImageFolderReader(template=frames)
    rng = np.random.default_rng([seed, zlib.crc32(file.path.encode())])
    begin = time.process_time()
    with reader.open(path) as video:
        promised = int(video.num_frames)
        try:
            pictures = _pictures(video, rng)
        except FrameCountChangedError:
            pictures = _pictures(video, rng)
        count = int(video.num_frames)
        if count < min(LEAST_SHARE * promised, promised - FRAME_SLACK):
            raise VideoError(f"truncated: the header promises {promised} frames, {count} decode")
        uneven = _uneven(video) if frames is None else None
    found = measure(pictures)
    return {
        "num_frames": count,
        "promised": promised if promised != count else None,
        "uneven": uneven,
        **found,
        "seconds": time.process_time() - begin,
        "digest": _digest(path) if hashed and frames is None else None,
    }


def measure(pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """Return what :func:`examine` says of the measured frames, ``(H, W, 3)`` uint8 each.

    Example:
        >>> grey = np.full((48, 64, 3), 128, np.uint8)
        >>> found = measure([grey] * 5)
        >>> found["light"][0], found["spread"][0], found["colour"][0], found["motion"]
        (128.0, 0.0, 0.0, 0.0)
    """
    light, spread, colour, thumbnails, fine = [], [], [], [], []
    for picture in pictures:
        step = max(1, min(picture.shape[:2]) // _LARGEST)
        thin = picture[::step, ::step].astype(np.float32)
        luminance = thin @ np.array([0.299, 0.587, 0.114], np.float32)
        light.append(round(float(luminance.mean()), 2))
        spread.append(round(float(luminance.std()), 2))
        colour.append(round(float((thin.max(-1) - thin.min(-1)).mean()), 2))
        thumbnails.append(thumbnail(luminance))
        fine.append(thumbnail(luminance, _FINE))
    stack = np.stack(fine)
    return {
        "light": light,
        "spread": spread,
        "colour": colour,
        "motion": round(float((stack.max(0) - stack.min(0)).max()), 2),
        "thumbnails": np.rint(thumbnails).astype(np.uint8).tobytes().hex(),
    }


def thumbnail(picture: NDArray[np.float32], side: int = SIDE) -> NDArray[np.float32]:
    """Return the means over ``side`` x ``side`` equal parts of a picture ``(H, W)``.

    Example:
        >>> float(thumbnail(np.eye(16, dtype=np.float32))[0, 0])
        0.5
    """
    for axis, size in enumerate(picture.shape):
        # Parts of a picture that is no multiple of them overlap by a pixel at most.
        starts = np.arange(side) * size // side
        ends = np.maximum(-(-(np.arange(side) + 1) * size // side), starts + 1)
        sums = np.insert(picture.cumsum(axis, dtype=np.float64), 0, 0, axis)
        part = sums.take(ends, axis) - sums.take(starts, axis)
        widths = (ends - starts).reshape(-1, *[1] * (1 - axis))
        picture = (part / widths).astype(np.float32)
    return picture


def thumbnails_of(values: Iterable[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Return the thumbnails of examined videos, ``(n, 5, 64)``."""
    content = b"".join(bytes.fromhex(one["thumbnails"]) for one in values)
    return np.frombuffer(content, np.uint8).reshape(-1, MARKS, SIDE * SIDE)


def _pictures(video: OpenVideo, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    count = video.num_frames
    marks = ((np.arange(MARKS) + 0.5) * count / MARKS).astype(np.int64)
    drawn = rng.integers(count, size=_DRAWN)
    return video.read([*marks, *drawn, count - 1])[:MARKS]


def _uneven(video: OpenVideo) -> float | None:
    """Return the share of uneven distances between frames; ``None`` where there are no times."""
    try:
        gaps = np.diff(video.times())
    except VideoError:
        return None
    if not len(gaps):
        return None
    usual = np.median(gaps)
    return round(float((np.abs(gaps - usual) > _UNEVEN * usual).mean()), 4)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
