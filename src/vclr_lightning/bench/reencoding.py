"""Re-encode a few videos, to measure what ``vclr prepare`` would gain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.opening import open_stream

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import VideoTable
    from vclr_lightning.data.readers import VideoProbe

_VIDEOS = 3
_PIXELS_PER_S = 15e6  # rough speed of decoding and encoding


@dataclass(frozen=True)
class VideoToEncode:
    """A video file that can be re-encoded: its row, path and properties."""

    row: int
    path: Path
    probe: VideoProbe
    b_frames: bool

    @property
    def seconds(self) -> float:
        """Rough time to re-encode it."""
        return self.probe.num_frames * self.probe.width * self.probe.height / _PIXELS_PER_S


def choose_sources(
    table: VideoTable, rows: Sequence[int], *, seconds: float
) -> list[VideoToEncode]:
    """Return up to three videos among ``rows`` that take about the median time to re-encode, and
    not more than ``seconds`` in all ways together.

    Raises:
        UserError: none is a video file, or even one would take too long.
    """
    found: list[VideoToEncode] = []
    for row in dict.fromkeys(rows):
        path = table.path(row)
        try:
            with open_stream(path) as (_, stream):
                b_frames = bool(stream.codec_context.has_b_frames)
            found.append(VideoToEncode(row, path, probe(path), b_frames))
        except (VideoError, OSError):
            continue
        if len(found) >= 3 * _VIDEOS:
            break
    if not found:
        raise UserError(
            "none of the videos is a file that can be re-encoded; of shards, measure it on the "
            "videos that they were made of"
        )
    middle = statistics.median(source.seconds for source in found)
    chosen = sorted(found, key=lambda source: abs(source.seconds - middle))[:_VIDEOS]
    allowed = seconds / len(reencodings(chosen))
    while len(chosen) > 1 and sum(source.seconds for source in chosen) > allowed:
        chosen.pop()
    if chosen[0].seconds > 2 * allowed:
        raise UserError(
            f"re-encoding a video would take {chosen[0].seconds:.0f} s: give more --seconds"
        )
    return chosen


def reencodings(sources: Sequence[VideoToEncode]) -> dict[str, tuple[str, Recipe]]:
    """Return ways to re-encode by name: options of ``vclr prepare`` and recipe, the smallest files
    first."""
    ways = {
        "vclr prepare": ("", Recipe()),
        "vclr prepare --intra": (" --intra", Recipe(keyframe_every=1)),
    }
    if any(source.b_frames for source in sources):
        every = statistics.median(source.probe.keyframe_interval or 250 for source in sources)
        same = Recipe(
            short_edge=max(min(s.probe.width, s.probe.height) for s in sources),
            keyframe_every=max(1, round(every)),
        )
        options = f" --keyframe-every {same.keyframe_every} --short-edge {same.short_edge}"
        ways["no B-frames, keyframes kept"] = options, same
    return ways


def reencode(
    table: VideoTable, sources: Sequence[VideoToEncode], recipe: Recipe, folder: Path
) -> tuple[VideoTable, float]:
    """Re-encode videos into a folder; return the table with them, and their relative size.

    Raises:
        UserError: a video cannot be read, or the folder is full.
    """
    files: dict[int, tuple[Path, int]] = {}
    for source in sources:
        out = folder / f"{source.row}.mp4"
        try:
            files[source.row] = out, transcode(source.path, out, recipe).num_frames
        except VideoError as error:
            raise UserError(f"{source.path} cannot be re-encoded: {error}") from error
    after = sum(path.stat().st_size for path, _ in files.values())
    before = sum(source.path.stat().st_size for source in sources)
    other: Any = _OtherFiles(table, files)
    return other, after / max(1, before)


class _OtherFiles:
    """A table with some of its videos read from other files."""

    def __init__(self, table: VideoTable, files: Mapping[int, tuple[Path, int]]) -> None:
        self._table = table
        self._files = files

    def __len__(self) -> int:
        return len(self._table)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def path(self, i: int) -> Path:
        return self._files[i][0] if i in self._files else self._table.path(i)

    def num_frames(self, i: int) -> int | None:
        return self._files[i][1] if i in self._files else self._table.num_frames(i)
