"""Read videos out of shards."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest.shard_paths import shard_place
from vclr_lightning.data.protocols import OpenVideo, TransientError, VideoError
from vclr_lightning.data.readers.opening import ByteSource, FilePart, InMemory
from vclr_lightning.data.readers.pyav import PyAVReader


class SourceReader(Protocol):
    """A reader that opens other sources of a video than whole files, too."""

    def open(
        self, path: Path | ByteSource, *, num_frames: int | None = None
    ) -> AbstractContextManager[OpenVideo]:
        """Open a video; see :class:`~vclr_lightning.data.protocols.VideoReader`."""
        ...


class ShardReader:
    """Reads the videos of a manifest that ``vclr shard`` wrote.

    Of a shard in a file system, only what the wanted frames need is read. From an object store a
    video is fetched whole, by one range request; a request that fails is repeated three times
    within some seconds.

    Args:
        reader: of the videos themselves; by default a :class:`PyAVReader`.
        url: where the shards are, if not beside the manifest: ``s3://bucket/set``,
            ``https://host/set`` or whatever fsspec opens with the packages installed.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.data.shards import pack
        >>> from vclr_lightning.data.synthetic import generate
        >>> videos = generate(Path(tempfile.mkdtemp()), train=1, val=1, untrimmed=0, workers=1)
        >>> manifest = pack(videos, Path(tempfile.mkdtemp()) / "shards", show=False).manifest
        >>> with ShardReader().open(manifest.path(0)) as video:
        ...     frames = video.read([0])
        >>> len(frames)
        1
    """

    def __init__(self, reader: SourceReader | None = None, *, url: str | None = None) -> None:
        self._reader = reader if reader is not None else PyAVReader()
        self._url = url.rstrip("/") if url is not None else None

    def open(
        self, path: Path, *, num_frames: int | None = None
    ) -> AbstractContextManager[OpenVideo]:
        """Open a video.

        Args:
            path: as in the manifest of the shards.
            num_frames: the number of frames that decode, if known.

        Raises:
            UserError: the path is not of a shard, or the package for this kind of ``url`` is
                missing.
            VideoError: the video cannot be read.
        """
        place = shard_place(path)
        if place is None:
            raise UserError(
                f"{path} is not a video in a shard; ShardReader needs the manifest that "
                "`vclr shard` wrote"
            )
        source: ByteSource
        if self._url is None:
            source = FilePart(Path(place.folder) / place.shard, place.start, place.size)
        else:
            source = InMemory(_fetched(f"{self._url}/{place.shard}", place.start, place.size))
        return self._reader.open(source, num_frames=num_frames)


def _fetched(url: str, start: int, size: int) -> bytes:
    from fsspec.core import url_to_fs

    try:
        # fsspec keeps one connection per process.
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be opened: {error}") from error
    try:
        content = bytes(files.cat_file(path, start=start, end=start + size))
    except (AttributeError, NameError, TypeError):
        raise
    except FileNotFoundError as error:
        raise VideoError(f"there is no shard {url}") from error
    except Exception as error:  # whatever the store's own package raises
        kind = VideoError if isinstance(error, PermissionError) else TransientError
        raise kind(f"{url} cannot be read: {str(error) or type(error).__name__}") from error
    if len(content) > size:
        raise VideoError(f"{url} is sent whole where a part is asked for; take another server")
    if len(content) < size:
        raise VideoError(f"truncated: {url} ends within the video")
    return content
