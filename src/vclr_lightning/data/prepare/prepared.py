"""The result of preparing a data set, and what reading costs before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.screen import progress_bar
from vclr_lightning.data.jobs import FileResult, Rejected, failure_lines
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.prepare.transcode import Recipe
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import PyAVReader

if TYPE_CHECKING:
    from rich.table import Table

_SAMPLE = 16  # videos
_DRAWS = 3  # of each
_BUDGET = 30.0  # seconds after which no further video is begun


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCost:
    """CPU time of opening a video and reading 3 + 3 of its frames, median over videos.

    Attributes:
        before: seconds, of the source.
        after: seconds, of the prepared file.
        videos: number measured.
    """

    before: float
    after: float
    videos: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared data set.

    Attributes:
        manifest: of the result.
        recipe: how it was encoded.
        failed: what could not be, as listed in ``failed_file``.
        failed_file: where it is listed, which exists if there is any.
        earlier: files that an earlier run had done.
        made: of each file that was re-encoded, in this run or earlier: source and result.
        cost: of reading before and after, if it was measured.
    """

    manifest: Manifest
    recipe: Recipe
    failed: Sequence[Rejected]
    failed_file: Path
    earlier: int
    made: Sequence[FileResult]
    cost: ReadCost | None

    @property
    def bytes_before(self) -> int:
        """Bytes of the sources that were re-encoded."""
        return sum(result.size for result in self.made)

    @property
    def bytes_after(self) -> int:
        """Bytes of the new files."""
        return sum(int(r.values["size"]) for r in self.made if r.values is not None)

    @property
    def done(self) -> int:
        """How many files are re-encoded."""
        return len(self.made)

    @property
    def kept_size(self) -> int:
        """Files below the short edge, which were not enlarged."""
        values = (r.values for r in self.made if r.values is not None)
        return sum(min(v["width"], v["height"]) < self.recipe.short_edge for v in values)

    def table(self) -> Table:
        """Return the figures, for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"prepared: {self.recipe.describe()}", title_justify="left")
        table.add_column("")
        for title in ("before", "after", "ratio"):
            table.add_column(title, justify="right")
        table.add_row("files", f"{self.done + len(self.failed):,}", f"{self.done:,}", "")
        before, after = self.bytes_before, self.bytes_after
        table.add_row(
            "bytes", size_text(before), size_text(after), f"{after / max(before, 1):.2f} x"
        )
        if (cost := self.cost) is not None:
            table.add_row(
                f"3 + 3 frames read, median of {cost.videos}",
                f"{1e3 * cost.before:.1f} ms",
                f"{1e3 * cost.after:.1f} ms",
                f"1 / {cost.before / cost.after:.1f}",
            )
        return table

    def notices(self) -> list[str]:
        """Return lines on what was done before, kept its size, or failed."""
        lines = failure_lines(self.failed, self.failed_file)
        if self.kept_size:
            lines.insert(
                0,
                f"{self.kept_size:,} are smaller than {self.recipe.short_edge} pixels and keep "
                "their size",
            )
        if self.earlier:
            lines.insert(0, f"{self.earlier:,} were done by an earlier run")
        return lines


def read_cost(pairs: Sequence[tuple[Path, Path, int]], *, show: bool = True) -> ReadCost | None:
    """Measure a sample of the videos: the same frames of source and result, alternately.

    Args:
        pairs: source, result and number of frames of each video.
        show: whether to show progress.

    Returns:
        The cost, or ``None`` if no source can be read any more.
    """
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(pairs))[:_SAMPLE]
    begin = time.monotonic()
    found: list[tuple[float, float]] = []
    with progress_bar("measuring what reading costs", len(chosen), show=show) as update:
        for number, k in enumerate(chosen, 1):
            source, prepared, num_frames = pairs[k]
            draws = [_draw(rng, num_frames) for _ in range(_DRAWS)]
            try:
                costs = [
                    (_seconds(source, indices), _seconds(prepared, indices)) for indices in draws
                ]
            except (VideoError, FrameCountChangedError, IndexError, OSError):
                continue
            before, after = np.median(costs, axis=0).tolist()
            found.append((before, after))
            update(number, "")
            if time.monotonic() - begin > _BUDGET:
                break
    if not found:
        return None
    before, after = np.median(found, axis=0).tolist()
    return ReadCost(before=before, after=after, videos=len(found))


def _draw(rng: np.random.Generator, num_frames: int) -> NDArray[np.int64]:
    """Draw one frame of each third of the video, twice."""
    bounds = np.linspace(0, num_frames, 4)
    return np.floor(rng.uniform(bounds[:-1], bounds[1:], (2, 3))).astype(np.int64).ravel()


def _seconds(file: Path, indices: NDArray[np.int64]) -> float:
    begin = time.process_time()
    with PyAVReader().open(file) as video:
        video.read(indices)
    return time.process_time() - begin


def size_text(number: float) -> str:
    """Return a number of bytes for a reader.

    Example:
        >>> size_text(1234), size_text(5e12)
        ('1.23 kB', '5 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
