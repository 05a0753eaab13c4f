"""Read videos that were extracted into folders of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError, checked_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ImageFolderReader:
    """Reads folders of extracted frames, JPEG or PNG, numbered from 0 or 1 without a gap.

    Args:
        template: name of an image with one number in it, in the form of :meth:`str.format`:
            ``img_{:05d}.jpg``, ``{:d}.png``.

    Raises:
        UserError: the template does not hold exactly one number.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for i in range(3):
        ...     Image.new("RGB", (32, 16), (80 * i,) * 3).save(folder / f"frame_{i:03d}.png")
        >>> with ImageFolderReader(template="frame_{:03d}.png").open(folder) as video:
        ...     frames = video.read([2, 0])
        >>> video.num_frames, frames[0].shape, int(frames[0].max())
        (3, (16, 32, 3), 160)
    """

    has_times = False  # but numbers of frames

    def __init__(self, *, template: str = "img_{:05d}.jpg") -> None:
        frame_pattern(template)
        self._template = template

    @contextmanager
    def open(self, path: Path, *, num_frames: int | None = None) -> Iterator[ImageFolder]:
        """Open a folder.

        Args:
            path: the folder.
            num_frames: the number of images in it, if known; otherwise the folder is listed.

        Raises:
            VideoError: there is no such folder, it has no image of that name, or a gap.
        """
        yield ImageFolder(Path(path), self._template, num_frames)


class ImageFolder:
    """A folder opened by :class:`ImageFolderReader`."""

    def __init__(self, path: Path, template: str, num_frames: int | None) -> None:
        self._path = path
        self._template = template
        if num_frames is None:
            self._start, self._num_frames = self._list()
        else:
            self._start = 0 if self._file(0).is_file() else 1
            self._num_frames = num_frames

    @property
    def num_frames(self) -> int:
        """Images in the folder."""
        return self._num_frames

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the images of ``frame_indices`` as ``(H, W, 3)`` RGB.

        Raises:
            FrameCountChangedError: the folder holds another number than ``num_frames``.
            IndexError: an index is negative or not below ``num_frames``.
            VideoError: an image is missing or cannot be decoded.
        """
        order = checked_indices(frame_indices, self._num_frames)
        pictures: dict[int, NDArray[np.uint8]] = {}
        for i in sorted(set(order)):
            file = self._file(self._start + i)
            if not file.is_file():
                self._start, self._num_frames = self._list()
                raise FrameCountChangedError(self._num_frames)
            pictures[i] = _decode(file)
        return [pictures[i] for i in order]

    def _file(self, number: int) -> Path:
        return self._path / self._template.format(number)

    def times(self) -> NDArray[np.float64]:
        """Return the number of each image, from 0: a folder of images has no clock."""
        return np.arange(self._num_frames, dtype=np.float64)

    def _list(self) -> tuple[int, int]:
        """Return the first number and how many follow without a gap."""
        pattern = frame_pattern(self._template)
        try:
            matches = [pattern.fullmatch(name) for name in os.listdir(self._path)]
        except NotADirectoryError as error:
            raise VideoError("a file, not a folder of extracted frames") from error
        except OSError as error:
            raise VideoError(f"the folder cannot be listed: {error.strerror}") from error
        numbers = sorted(
            number
            for match in matches
            if match and self._template.format(number := int(match[1])) == match[0]
        )
        if not numbers:
            raise VideoError(f"no picture in the folder is named like {self._template}")
        start = numbers[0]
        if start > 1:
            raise VideoError(f"the first picture is {self._template.format(start)}, not 0 or 1")
        for expected, number in enumerate(numbers, start):
            if number != expected:
                raise VideoError(f"{self._template.format(expected)} is missing")
        return start, len(numbers)


def frame_pattern(template: str) -> re.Pattern[str]:
    """Return the pattern of file names that ``template`` makes, with the number as group 1.

    Raises:
        UserError: the template has not exactly one number in it.

    Example:
        >>> frame_pattern("img_{:05d}.jpg").fullmatch("img_00012.jpg")[1]
        '00012'
    """
    # A template may come with a manifest, and a format may ask for any width.
    parts = re.split(r"\{0?(?::0?\d{0,2}d?)?\}", template)
    if len(parts) != 2 or any(set("{}/") & set(part) for part in parts):
        raise UserError(
            f"the frame template {template!r} must be a file name with one number in it, as in "
            "img_{:05d}.jpg"
        )
    return re.compile(re.escape(parts[0]) + r"(\d+)" + re.escape(parts[1]))


def _decode(file: Path) -> NDArray[np.uint8]:
    # FFmpeg's own JPEG decoder upsamples colour more coarsely.
    from PIL import Image

    try:
        with Image.open(file) as picture:
            if picture.mode.startswith(("I", "F")):
                raise VideoError(f"{file.name} has more than 8 bits per colour")
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VideoError(f"{file.name} cannot be decoded: {first_line}") from error
