"""Shards: tar files in the form of WebDataset, filled in the order of the videos' paths."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vclr_lightning.core.files import replacing
from vclr_lightning.core.foreign import HEAD, kind_of
from vclr_lightning.data.faults import retried
from vclr_lightning.data.jobs import FileResult
from vclr_lightning.data.manifest.shard_paths import shard_name
from vclr_lightning.data.protocols import VideoError


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard before it is written.

    Attributes:
        name: of its file.
        first: number of its first video among all.
        files: path, size and time of its videos.
        about: what it contains about each of these.
    """

    name: str
    first: int
    files: Sequence[FileResult]
    about: Sequence[Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """A hash of everything that the shard's bytes depend on."""
        pairs = zip(self.files, self.about, strict=True)
        content = [self.first, [(f.path, f.size, f.mtime_ns, about) for f, about in pairs]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def fill_shards(
    files: Sequence[FileResult], about: Mapping[str, Mapping[str, Any]], most: int
) -> list[Shard]:
    """Fill one shard after another, in the order of the paths.

    Rows, which a manifest sorts by split and path, thereby keep their order, whatever the splits.

    Args:
        files: what is to be stored.
        about: what the shards are to contain about each, by path.
        most: bytes of videos in a shard; a larger video has one of its own.

    Example:
        >>> files = [FileResult(path, 4, 0) for path in "bca"]
        >>> shards = fill_shards(files, dict.fromkeys("abc", {}), 8)
        >>> [[file.path for file in shard.files] for shard in shards]
        [['a', 'b'], ['c']]
    """
    groups: list[list[FileResult]] = []
    filled = 0
    for file in sorted(files, key=lambda file: file.path):
        if not groups or filled + file.size > most:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += file.size
    shards: list[Shard] = []
    first = 0
    for number, group in enumerate(groups):
        shards.append(Shard(shard_name(number), first, group, [about[file.path] for file in group]))
        first += len(group)
    return shards


def write_shard(shard: Shard, *, root: Path, out: Path) -> dict[str, Any]:
    """Write a shard into ``out``, where it appears when it is complete.

    Args:
        shard: its content.
        root: folder of the sources.
        out: folder of the result.

    Returns:
        ``digest``, ``size`` in bytes, ``starts``: the position of each video's first byte by
        path, and ``failed``: why a video is not in it, by path.

    Raises:
        UserError: ``out`` cannot be written to, or is full.
    """
    starts: dict[str, int] = {}
    failed: dict[str, str] = {}
    with replacing(out / shard.name) as sink:
        writer = ShardWriter(sink)
        pairs = zip(shard.files, shard.about, strict=True)
        for number, (file, about) in enumerate(pairs, shard.first):
            add = functools.partial(
                writer.add, number, root / file.path, size=file.size, about=about
            )
            try:
                starts[file.path] = retried(add, after=(VideoError,))
            except VideoError as error:
                failed[file.path] = str(error)
        writer.finish()
        size = sink.tell()
    return {"digest": shard.digest, "size": size, "starts": starts, "failed": failed}


class ShardWriter:
    """Writes videos one after another, each beside a JSON file that describes it.

    Names are numbers, because WebDataset takes the part before the first dot for the sample.

    Args:
        sink: where to write, at its beginning.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._tar = tarfile.TarFile(
            fileobj=sink, mode="w", format=tarfile.GNU_FORMAT, copybufsize=2**20
        )

    def add(self, number: int, source: Path, *, size: int, about: Mapping[str, Any]) -> int:
        """Store a file, or nothing of it.

        Args:
            number: of the sample.
            source: the file.
            size: bytes that it is known to have.
            about: content of the JSON file.

        Returns:
            The position of the first byte.

        Raises:
            VideoError: the file cannot be read, has another size, or is clearly no video.
            OSError: the shard cannot be written.
        """
        begin = self._tar.offset
        blocks = -(-size // tarfile.BLOCKSIZE)
        suffix = PurePosixPath(source.name).suffix.lower() or ".video"
        try:
            with _reading():
                file = source.open("rb")
            with file:
                self._add(f"{number:08d}{suffix}", size, _CheckedSource(file))
                start = self._tar.offset - blocks * tarfile.BLOCKSIZE  # a long name has two headers
                with _reading():
                    if file.read(1):
                        raise VideoError("it changed while it was stored")
        except VideoError:
            self._sink.seek(begin)
            self._sink.truncate()
            self._tar.offset = begin
            raise
        content = json.dumps(about, ensure_ascii=False).encode()
        self._add(f"{number:08d}.json", len(content), io.BytesIO(content))
        return start

    def _add(self, name: str, size: int, content: Any) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._tar.addfile(info, content)

    def finish(self) -> None:
        """Write the end of the tar file."""
        self._tar.close()


class _CheckedSource:
    """A file whose content is checked while it is copied."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        with _reading():
            is_head = not self._file.tell()
            part = self._file.read(size)
        # A manifest may name anything, also what a link leads to.
        if is_head and (kind := kind_of(part[:HEAD])):
            raise VideoError(f"it is no video: it {kind}")
        if len(part) < size:
            raise VideoError("it changed while it was stored")
        return part


@contextmanager
def _reading() -> Iterator[None]:
    """Turn an error of the source, unlike one of the shard, into a :class:`VideoError`."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"the file cannot be read: {error.strerror}") from error
