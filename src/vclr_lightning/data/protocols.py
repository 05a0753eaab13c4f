"""Protocols of the data path: anything that follows them can replace its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.core.types import Draw, ViewSpec


LEAST_SHARE = 0.9
"""Share of the promised frames; if fewer decode, the file is truncated."""

FRAME_SLACK = 2
"""Frames by which the headers of intact AVI files may be wrong."""


class FrameCountChangedError(Exception):
    """Another number of frames decodes than the container promised, namely ``actual``."""

    def __init__(self, actual: int) -> None:
        super().__init__(f"{actual} frames decode, which is not what the container promised")
        self.actual = actual


class VideoError(Exception):
    """A video cannot be read; the message is the reason, in one sentence, without the path."""


class TransientError(VideoError):
    """A video cannot be read now, but possibly later; reading it is retried."""


class VideoTable(Protocol):
    """The rows of a data set, by position; a :class:`Manifest` is one."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """A hash of the videos, their order, ids, groups and labels."""
        ...

    def path(self, i: int) -> Path: ...

    def video_id(self, i: int) -> int:
        """Return the video's unique non-negative number."""
        ...

    def group_id(self, i: int) -> int:
        """Return the number of the video's group, shared by clips cut from one source."""
        ...

    def label(self, i: int) -> int:
        """Return the class, or -1 if there is none."""
        ...

    def num_frames(self, i: int) -> int | None:
        """Return the number of the file's decodable frames, or ``None`` if it is not certain."""
        ...

    def window(self, i: int) -> tuple[float, float] | None:
        """Return start and end of the row within its file, on the clock of
        :meth:`OpenVideo.times`, or ``None`` for the whole file."""
        ...


class OpenVideo(Protocol):
    """One opened video."""

    @property
    def num_frames(self) -> int:
        """Decodable frames, with indices ``0..num_frames - 1`` in order of presentation."""
        ...

    def times(self) -> NDArray[np.float64]:
        """Return when each frame is shown, ``(num_frames,)``, rising from 0, in seconds.

        Called only if a row of the table is a part of its file, or if clips are read at a rate.
        Folders of extracted frames have no clock and return frame numbers.

        Raises:
            VideoError: the file has no times.
        """
        ...

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the frames of ``frame_indices`` (any order, repeats allowed) as ``(H, W, 3)`` RGB.

        Repeated indices share one array, which the caller must not write to.

        Raises:
            FrameCountChangedError: another number of frames decodes; draw again with ``actual``.
            VideoError: the video cannot be read.
        """
        ...


def checked_indices(frame_indices: Sequence[int] | NDArray[np.int64], num_frames: int) -> list[int]:
    """Return frame indices as a list, for a reader of a video of ``num_frames`` frames.

    Raises:
        IndexError: an index is negative or not below ``num_frames``.

    Example:
        >>> checked_indices([3, 3, 0], 4)
        [3, 3, 0]
    """
    indices = [int(i) for i in frame_indices]
    if indices and not 0 <= min(indices) <= max(indices) < num_frames:
        raise IndexError(f"frame indices {indices} are not all within 0..{num_frames - 1}")
    return indices


class VideoReader(Protocol):
    """Opens videos; picklable, holds no open files itself.

    A bad file raises a :class:`VideoError`, an error of PyAV or one of the system (``OSError``).
    After an error that may be transient, such as a network's, the video is read again a little
    later. Any other exception is a bug of the reader and ends the run.

    If its videos have no times in seconds, it has an attribute ``has_times`` that is false.
    """

    def open(
        self, path: Path, *, num_frames: int | None = None
    ) -> AbstractContextManager[OpenVideo]:
        """Open ``path``; ``num_frames`` is the number of decodable frames, if known.

        Raises:
            VideoError: the video cannot be read.
        """
        ...


class Sampler(Protocol):
    """Draws the frames of all views of a video jointly.

    It may have three more attributes: ``targets``, the names of the targets that it draws, as a
    tuple; ``min_frames``, so that shorter videos are left out; and ``needs_times``. If that is
    true, it is also given ``times=``, when each frame is shown in seconds, ``(num_frames,)``.
    """

    @property
    def views(self) -> Mapping[str, ViewSpec]: ...

    def __call__(self, num_frames: int, rng: np.random.Generator) -> Draw: ...


class ClipTransform(Protocol):
    """Converts a clip to a fixed size, with the same random parameters for all its frames.

    One that makes targets, such as the angle of a rotation, names them in the attribute
    ``targets``, a tuple, and returns ``(clip, {name: array})``. Each becomes the batch's target
    ``VIEW.NAME``, one value for each clip of the view.
    """

    @property
    def size(self) -> int:
        """Height and width of the result in pixels."""
        ...

    def __call__(self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Tensor:
        """``T`` frames ``(H, W, 3)`` uint8 to ``(3, T, size, size)`` uint8."""
        ...


class SplitTransform(ClipTransform, Protocol):
    """A transform that can leave a part of its work to the training device."""

    def begin(
        self, clip: Sequence[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.int32]]:
        """Do the worker's part; return the result and the parameters of the rest.

        ``T`` frames ``(H, W, 3)`` uint8 to a tensor ``(T, ...)``, which :meth:`finish` may get in
        parts, and ``(P,)`` int32; shapes depend on T alone.
        """
        ...

    def finish(self, clips: Tensor, parameters: Tensor) -> Tensor:
        """Do the rest on the device of ``clips``, the stacked tensors from :meth:`begin`.

        ``parameters`` ``(N, P)`` int32 are on the host. The result, ``(N, 3, T, size, size)``
        uint8, equals that of calling the transform.
        """
        ...
