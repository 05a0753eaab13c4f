"""Read frames of video files with torchcodec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError, checked_indices
from vclr_lightning.data.readers.opening import ByteSource, as_source, head, unreadable
from vclr_lightning.data.readers.pyav import PyAVReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from vclr_lightning.data.readers.video import PyAVVideo

_MATROSKA = b"\x1a\x45\xdf\xa3"
_DEEP = re.compile(r"\d(le|be)$")  # as in yuv420p10le


class TorchcodecReader:
    """Reads MP4, QuickTime, Matroska and WebM files with torchcodec, and others with PyAV.

    Frames equal those of :class:`~vclr_lightning.data.readers.PyAVReader`, bit by bit if both use
    the same FFmpeg, except that the colours of interlaced videos, stored at half the height, are
    upsampled differently. In other containers torchcodec cannot access every frame by index, and
    it rounds more than 8 bits per colour differently; these files are read by PyAV, as is a file
    in which torchcodec fails or finds another number of frames than the manifest.

    Needs the extra ``torchcodec`` and FFmpeg's shared libraries, which are not part of it.

    Args:
        thread_count: threads of each decoder; 0: as FFmpeg chooses.

    Raises:
        UserError: ``thread_count`` is negative, or torchcodec or FFmpeg cannot be loaded.
    """

    def __init__(self, *, thread_count: int = 1) -> None:
        self._thread_count = thread_count
        self._fallback = PyAVReader(thread_count=thread_count)
        _check_installed()

    @contextmanager
    def open(
        self, path: Path | ByteSource, *, num_frames: int | None = None
    ) -> Iterator[TorchcodecVideo | PyAVVideo]:
        """Open a file.

        Args:
            path: a video file, or another source of a video.
            num_frames: the number of frames that decode, if known.

        Raises:
            VideoError: the video cannot be read.
        """
        decoder = self._decoder(as_source(path))
        fallback = partial(self._fallback.open, path, num_frames=num_frames)
        if decoder is None or num_frames not in (None, len(decoder)):
            with fallback() as video:
                yield video
        else:
            yield TorchcodecVideo(decoder, fallback)

    def _decoder(self, source: ByteSource) -> Any:
        """Return a decoder, or ``None`` for a file that PyAV must read."""
        try:
            first = head(source, 12)
        except OSError as error:
            raise VideoError(unreadable(source, error)) from error
        if first[4:8] != b"ftyp" and first[:4] != _MATROSKA:
            return None
        try:
            decoder = _decoder_class()(
                source.target(),
                dimension_order="NHWC",
                num_ffmpeg_threads=self._thread_count,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError):
            return None
        deep = _DEEP.search(decoder.metadata.pixel_format or "")
        return decoder if len(decoder) and not deep else None


class TorchcodecVideo:
    """A video file opened by :class:`TorchcodecReader`.

    Args:
        decoder: torchcodec's, of the file.
        fallback: opens the file with PyAV, which reads it if the decoder fails.
    """

    def __init__(
        self, decoder: Any, fallback: Callable[[], AbstractContextManager[PyAVVideo]]
    ) -> None:
        self._decoder = decoder
        self._fallback = fallback
        self._num_frames = len(decoder)

    @property
    def num_frames(self) -> int:
        """Decodable frames."""
        return self._num_frames

    def times(self) -> NDArray[np.float64]:
        """Return when each frame is shown, in seconds from the first, ``(num_frames,)``."""
        with self._fallback() as video:
            return video.times()

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the frames of ``frame_indices`` as ``(H, W, 3)`` RGB.

        Raises:
            FrameCountChangedError: another number of frames decodes than ``num_frames``, which is
                right from then on.
            IndexError: an index is negative or not below ``num_frames``.
            VideoError: the video cannot be read.
        """
        order = checked_indices(frame_indices, self._num_frames)
        if not order:
            return []
        if self._decoder is not None:
            wanted = sorted(set(order))
            try:
                batch = self._decoder.get_frames_at(indices=wanted).data.numpy()
            except (RuntimeError, ValueError, IndexError):
                self._decoder = None
            else:
                pictures = dict(zip(wanted, batch, strict=True))
                return [pictures[i] for i in order]
        with self._fallback() as video:
            if video.num_frames == self._num_frames:
                return video.read(order)
            self._num_frames = video.num_frames
            raise FrameCountChangedError(video.num_frames)


def _decoder_class() -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder


def _check_installed() -> None:
    try:
        decoder = _decoder_class()
    except ImportError as error:
        raise UserError(
            f"torchcodec cannot be loaded ({error}); pip install 'vclr_lightning[torchcodec]', or "
            "leave data.reader to the default"
        ) from error
    try:
        decoder(b"no video")
    except (OSError, RuntimeError, ValueError) as error:
        # Its libraries, and with them FFmpeg's, are loaded when the first video is opened.
        if "libtorchcodec" in str(error):
            raise UserError(
                "torchcodec finds no shared libraries of FFmpeg that it can load; install them "
                "(apt install ffmpeg, or conda install -c conda-forge ffmpeg), or leave "
                "data.reader to the default"
            ) from error
