"""What was found in a set of videos, as plain values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.doctor.near_duplicates import Alike
    from vclr_lightning.data.jobs import FileResult, Rejected
    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.data.prepare.prepared import ReadCost


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of trouble, and the videos that have it.

    Attributes:
        name: short, for programs.
        title: what the videos are or have.
        hurts: whether it makes training fail or what is measured wrong.
        videos: path and detail of each; of several that belong together, the paths in lines.
        advice: what to do about it.
    """

    name: str
    title: str
    hurts: bool
    videos: Sequence[tuple[str, str]]
    advice: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The videos of a manifest with what was found in their files.

    Attributes:
        manifest: all of its rows.
        results: of each file, in the order of its path.
        file_of: position in ``results`` of each row.
        alike: files that show the same.
        rejected: files that are not in the manifest.
    """

    manifest: Manifest
    results: Sequence[FileResult]
    file_of: NDArray[np.int64]
    alike: Sequence[Alike]
    rejected: Sequence[Rejected]

    def frames(self) -> NDArray[np.float64]:
        """Return how many frames each row has, NaN where unknown."""
        column = self.manifest.column("num_frames").astype(np.float64)
        found = [np.nan if r.values is None else r.values["num_frames"] for r in self.results]
        counts = np.array(found, dtype=np.float64)[self.file_of]
        counts = np.where(np.isnan(counts), column, counts)
        window = self.manifest.column("end").astype(np.float64) - self.manifest.column("start")
        rate = 1.0 if self.manifest.info.frames else self.manifest.column("fps").astype(np.float64)
        return np.where(np.isnan(window), counts, np.minimum(counts, window * rate))

    def rows_of(self) -> dict[int, list[int]]:
        """Return the rows of each file."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row, file in enumerate(self.file_of.tolist()):
            rows[file].append(row)
        return rows


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a set of videos.

    Attributes:
        subject: videos, and what was found in each.
        findings: those that hurt first.
        examined: files that were opened now; the others were known from an earlier run.
        cost: of reading a few videos before and after `vclr prepare`, and how many times their
            bytes; ``None`` where none was re-encoded.
    """

    subject: Subject
    findings: Sequence[Finding]
    examined: int
    cost: tuple[ReadCost, float] | None

    @property
    def hurts(self) -> bool:
        """Whether training would fail, or what it measures would be wrong."""
        return any(one.hurts for one in self.findings)

    def segments(self, most: int, *, clip: int = 1) -> list[tuple[int, int, int]]:
        """Return for 1 to ``most`` segments how many videos have too few frames.

        Args:
            most: segments.
            clip: frames that a clip spans.

        Returns:
            Segments; rows with fewer frames than these clips take one after another; rows with
            fewer than two per segment, so that both draws of a segment are the same.
        """
        counts = self.subject.frames()
        return [
            (s, int((counts < s * clip).sum()), int((counts < 2 * s).sum()))
            for s in range(1, most + 1)
        ]
