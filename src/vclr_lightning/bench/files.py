"""Some of the videos, re-encoded, in the place of their sources."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.opening import open_stream

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import VideoTable
    from vclr_lightning.data.readers import VideoProbe

_PIXELS_PER_S = 15e6  # what decoding and encoding a frame take, roughly


@dataclass(frozen=True)
class Source:
    """A video that can be re-encoded.

    Attributes:
        row: of the table.
        path: of the file.
        probe: what is found in it.
        b_frames: whether it has any.
    """

    row: int
    path: Path
    probe: VideoProbe
    b_frames: bool

    @property
    def seconds(self) -> float:
        """How long re-encoding will take, roughly."""
        return self.probe.num_frames * self.probe.width * self.probe.height / _PIXELS_PER_S


def choose_sources(table: VideoTable, rows: Sequence[int], *, number: int) -> list[Source]:
    """Return the videos among ``rows`` that are nearest the middle in what re-encoding takes.

    Raises:
        UserError: none is a video file.
    """
    found: list[Source] = []
    for row in dict.fromkeys(rows):
        path = table.path(row)
        try:
            looked = probe(path)
            with open_stream(path) as (_, stream):
                b_frames = bool(stream.codec_context.has_b_frames)
        except (VideoError, OSError):
            continue
        found.append(Source(row, path, looked, b_frames))
        if len(found) >= 3 * number:
            break
    if not found:
        raise UserError(
            "none of the videos is a file that can be re-encoded; of shards, measure it on the "
            "videos that they were made of"
        )
    middle = statistics.median(source.seconds for source in found)
    return sorted(found, key=lambda source: abs(source.seconds - middle))[:number]


def same_spacing(sources: Sequence[Source]) -> Recipe:
    """Return the recipe that leaves out B-frames and leaves sizes and keyframes as they are."""
    intervals = [s.probe.keyframe_interval or 250 for s in sources]
    return Recipe(
        short_edge=max(min(s.probe.width, s.probe.height) for s in sources),
        keyframe_every=max(1, round(statistics.median(intervals))),
    )


@dataclass(frozen=True)
class Reencoded:
    """Re-encoded videos.

    Attributes:
        files: path and number of frames, by row.
        ratio: bytes of the results for a byte of the sources.
    """

    files: dict[int, tuple[Path, int]]
    ratio: float

    @staticmethod
    def make(sources: Sequence[Source], recipe: Recipe, folder: Path) -> Reencoded:
        """Re-encode videos into a folder.

        Raises:
            UserError: a video cannot be read, or the folder is full.
        """
        files: dict[int, tuple[Path, int]] = {}
        before = after = 0
        for source in sources:
            out = folder / f"{source.row}.mp4"
            try:
                made = transcode(source.path, out, recipe)
            except VideoError as error:
                raise UserError(f"{source.path} cannot be re-encoded: {error}") from error
            files[source.row] = out, made.num_frames
            before += source.path.stat().st_size
            after += out.stat().st_size
        return Reencoded(files, after / max(1, before))


class OtherFiles:
    """A table some of whose videos are read from other files."""

    def __init__(self, table: VideoTable, files: Reencoded) -> None:
        self._table = table
        self._files = files.files

    def __len__(self) -> int:
        return len(self._table)

    @property
    def fingerprint(self) -> str:
        return self._table.fingerprint

    def path(self, i: int) -> Path:
        return self._files[i][0] if i in self._files else self._table.path(i)

    def num_frames(self, i: int) -> int | None:
        return self._files[i][1] if i in self._files else self._table.num_frames(i)

    def video_id(self, i: int) -> int:
        return self._table.video_id(i)

    def group_id(self, i: int) -> int:
        return self._table.group_id(i)

    def label(self, i: int) -> int:
        return self._table.label(i)

    def window(self, i: int) -> tuple[float, float] | None:
        return self._table.window(i)
