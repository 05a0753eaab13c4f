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
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers.opening import unreadable
from vclr_lightning.data.readers.pyav import PyAVReader
from vclr_lightning.data.readers.sources import VideoSource, as_source, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from vclr_lightning.data.readers.video import PyAVVideo

_MATROSKA = b"\x1a\x45\xdf\xa3"
_DEEP = re.compile(r"\d(le|be)$")  # as in yuv420p10le


class TorchcodecReader:
    """Reads MP4, QuickTime, Matroska and WebM files with torchcodec, and others with PyAV.

    A frame has the index that it has for :class:`~vclr_lightning.data.readers.PyAVReader`, and both
    give the same pictures, bit by bit where both run the same FFmpeg; but of interlaced videos the
    colours, which are stored at half the height, are spread over the lines in another way. Of other
    containers torchcodec does not give every frame by its index, and it rounds more than 8 bits a
    colour otherwise, so these are read by PyAV, as is a file in which torchcodec fails, or finds
    another number of frames than the manifest knows of.

    It needs the extra ``torchcodec`` and FFmpeg's shared libraries, which are not part of it.

    Args:
        thread_count: threads of each decoder; 0: as many as FFmpeg finds fit.

    Raises:
        UserError: ``thread_count`` is negative, or torchcodec or FFmpeg cannot be loaded.
    """

    def __init__(self, *, thread_count: int = 1) -> None:
        self._thread_count = thread_count
        self._fallback = PyAVReader(thread_count=thread_count)
        _check_installed()

    @contextmanager
    def open(
        self, path: Path | VideoSource, *, num_frames: int | None = None
    ) -> Iterator[TorchcodecVideo | PyAVVideo]:
        """Open a file.

        Args:
            path: a video file, or where else a video is.
            num_frames: the number of frames that decode, where it is known.

        Raises:
            VideoError: the file is no readable video.
        """
        decoder = self._decoder(as_source(path))
        fallback = partial(self._fallback.open, path, num_frames=num_frames)
        if decoder is None or num_frames not in (None, len(decoder)):
            with fallback() as video:
                yield video
        else:
            yield TorchcodecVideo(decoder, fallback)

    def _decoder(self, source: VideoSource) -> Any:
        """Return a decoder, or ``None`` for a file that is not for torchcodec."""
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
        decoder: of torchcodec, which has read the file's packets.
        fallback: opens the file with another reader.
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
        order = [int(index) for index in frame_indices]
        if order and not 0 <= min(order) <= max(order) < self._num_frames:
            raise IndexError(f"frame indices {order} are not all within 0..{self._num_frames - 1}")
        if not order:
            return []
        if self._decoder is not None:
            wanted = sorted(set(order))
            try:
                batch = self._decoder.get_frames_at(indices=wanted).data.numpy()
            except (RuntimeError, ValueError, IndexError):
                self._decoder = None  # which leaves the file to the other reader
            else:
                pictures = dict(zip(wanted, batch, strict=True))
                return [pictures[index] for index in order]
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
