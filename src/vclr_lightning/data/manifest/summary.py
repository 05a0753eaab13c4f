"""What a manifest holds, in numbers and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.data.manifest.manifest import Manifest

_SHOWN = 5  # values of one kind in a table cell


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of one manifest or selection.

    Attributes:
        videos: rows.
        splits: videos by split.
        classes: class names in the manifest.
        labelled: videos with a label.
        groups: different groups.
        hours: sum of the known durations; ``None`` where none is known.
        bytes: sum of the file sizes; ``None`` for folders of frames.
        exact: videos whose frame count is known to be right.
        frames: least, median and greatest number of frames; ``None`` where none is known.
        sizes: videos by ``WIDTHxHEIGHT``, most frequent first.
        codecs: videos by codec, most frequent first.
        keyframes: least, median and greatest number of frames between keyframes, or ``None``.
    """

    videos: int
    splits: Mapping[str, int]
    classes: int
    labelled: int
    groups: int
    hours: float | None
    bytes: int | None
    exact: int
    frames: tuple[float, float, float] | None
    sizes: Mapping[str, int]
    codecs: Mapping[str, int]
    keyframes: tuple[float, float, float] | None

    def table(self, title: str = "") -> Table:
        """Return the numbers as a rich table of two columns."""
        from rich.table import Table

        table = Table(title=title or None, show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        table.add_row("videos", f"{self.videos:,} ({self.groups:,} groups)")
        table.add_row("splits", _list(self.splits))
        table.add_row("classes", f"{self.classes:,} ({self.labelled:,} videos labelled)")
        table.add_row("hours", "unknown" if self.hours is None else f"{self.hours:,.2f}")
        if self.bytes is not None:
            table.add_row("on disk", f"{self.bytes / 1e9:,.3f} GB")
        table.add_row("frames", f"{_spread(self.frames)} (known exactly: {self.exact:,})")
        table.add_row("sizes", _list(self.sizes))
        table.add_row("codecs", _list(self.codecs))
        table.add_row("keyframe every", f"{_spread(self.keyframes)} frames")
        return table


def summarise(manifest: Manifest) -> Summary:
    """Count what ``manifest`` holds."""
    width, height = manifest.column("width"), manifest.column("height")
    durations = manifest.column("duration").astype(np.float64)
    return Summary(
        videos=len(manifest),
        splits=dict(sorted(_counts_of_words(manifest, "split").items())),
        classes=manifest.num_classes,
        labelled=int((manifest.labels >= 0).sum()),
        groups=len(np.unique(manifest.group_ids)),
        hours=None if np.isnan(durations).all() else float(np.nansum(durations)) / 3600,
        bytes=None if manifest.info.frames else int(manifest.column("size").sum()),
        exact=int(manifest.column("exact").astype(np.bool_).sum()),
        frames=_three(manifest.column("num_frames")),
        sizes=_sizes(width.astype(np.float64), height.astype(np.float64)),
        codecs=_counts_of_words(manifest, "codec"),
        keyframes=_three(manifest.column("keyframe_interval")),
    )


def _counts_of_words(manifest: Manifest, column: str) -> dict[str, int]:
    codes, counts = np.unique(manifest.column(column), return_counts=True)
    words = [*manifest.words(column), "unknown"]  # code -1 is the last
    return {words[int(codes[k])]: int(counts[k]) for k in np.argsort(-counts, kind="stable")}


def _sizes(width: NDArray[np.float64], height: NDArray[np.float64]) -> dict[str, int]:
    pairs = np.nan_to_num(np.stack([width, height], 1), nan=0).astype(np.int64)
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    names = [f"{w}x{h}" if w else "unknown" for w, h in values.tolist()]
    return {names[k]: int(counts[k]) for k in np.argsort(-counts, kind="stable")}


def _three(values: NDArray[Any]) -> tuple[float, float, float] | None:
    known = values.astype(np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    return float(known.min()), float(np.median(known)), float(known.max())


def _list(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {rest:,} more" if rest else "")


def _spread(three: tuple[float, float, float] | None) -> str:
    if three is None:
        return "unknown"
    least, median, greatest = three
    return f"{least:,.0f} to {greatest:,.0f}, median {median:,.0f}"
