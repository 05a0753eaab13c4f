"""What a manifest contains, in numbers and as a table, and whether its files have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.data.manifest.manifest import Manifest
from vclr_lightning.data.manifest.shard_paths import shard_place

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 5  # values of one kind in a table cell
_NAMED = 3  # groups


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of one manifest or selection.

    Attributes:
        videos: rows.
        splits: videos by split.
        classes: class names in the manifest.
        labelled: videos with a label.
        groups: number of groups.
        hours: sum of the known durations; ``None`` where none is known.
        bytes: sum of the file sizes; ``None`` for folders of frames.
        exact: videos whose frame count is known to be right.
        frames: least, median and greatest number of frames; ``None`` where none is known.
        sizes: videos by ``WIDTHxHEIGHT``, most frequent first.
        codecs: videos by codec, most frequent first.
        keyframes: least, median and greatest number of frames between keyframes, or ``None``.
        files: number of files.
        clips: rows that are a part of their file.
        spans: annotated spans within videos.
        damaged: videos some frames of which are known to be damaged.
        untrained: of other splits than ``train``, labelled videos by class that has no video in
            ``train``; empty without a split ``train``.
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
    files: int
    clips: int
    spans: int
    damaged: int
    untrained: Mapping[str, int]

    def untrained_notice(self) -> str:
        """Return one line on the classes without a training video, if there are any."""
        if not self.untrained:
            return ""
        return (
            f"{len(self.untrained):,} classes have no video in train, but "
            f"{sum(self.untrained.values()):,} in other splits: {_list(self.untrained)}"
        )

    def table(self, title: str = "") -> Table:
        """Return the numbers as a rich table of two columns."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=title or None, show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        table.add_row("videos", f"{self.videos:,} ({self.groups:,} groups)")
        if self.clips:
            table.add_row("clips", f"{self.clips:,}, parts of {self.files:,} files")
        if self.spans:
            table.add_row("spans", f"{self.spans:,} annotated")
        table.add_row("splits", _list(self.splits))
        table.add_row("classes", f"{self.classes:,} ({self.labelled:,} videos labelled)")
        if self.untrained:
            table.add_row("not in train", _list(self.untrained))
        table.add_row("hours", "unknown" if self.hours is None else f"{self.hours:,.2f}")
        if self.bytes is not None:
            table.add_row("on disk", f"{self.bytes / 1e9:,.3f} GB")
        table.add_row("frames", f"{_spread(self.frames)} (known exactly: {self.exact:,})")
        if self.damaged:
            table.add_row("damaged in part", f"{self.damaged:,} videos")
        table.add_row("sizes", _list(self.sizes))
        table.add_row("codecs", _list(self.codecs))
        table.add_row("keyframe every", f"{_spread(self.keyframes)} frames")
        return table


def summarise(manifest: Manifest) -> Summary:
    """Count videos, classes, groups and so on of ``manifest``."""
    width, height = manifest.column("width"), manifest.column("height")
    durations = manifest.column("duration").astype(np.float64)
    windows = manifest.column("end").astype(np.float64) - manifest.column("start")
    clips = ~np.isnan(windows)
    if not manifest.info.frames:
        durations = np.where(clips, windows, durations)
    first = _first_of_file(manifest) if clips.any() else np.arange(len(manifest))
    return Summary(
        videos=len(manifest),
        splits=dict(sorted(_counts_of_words(manifest, "split").items())),
        classes=manifest.num_classes,
        labelled=int((manifest.labels >= 0).sum()),
        groups=len(np.unique(manifest.group_ids)),
        hours=None if np.isnan(durations).all() else float(np.nansum(durations)) / 3600,
        bytes=None if manifest.info.frames else int(manifest.column("size")[first].sum()),
        exact=int(manifest.column("exact").astype(np.bool_).sum()),
        frames=_three(manifest.column("num_frames")),
        sizes=_sizes(width.astype(np.float64), height.astype(np.float64)),
        codecs=_counts_of_words(manifest, "codec"),
        keyframes=_three(manifest.column("keyframe_interval")),
        files=len(first),
        clips=int(clips.sum()),
        spans=int(manifest.column("spans").sum()),
        damaged=int((manifest.column("damaged").astype(np.float64) > 0).sum()),
        untrained=_untrained(manifest),
    )


def changed_files(manifest: Manifest) -> dict[str, str]:
    """Return ``missing``, ``size`` or ``time`` for each file that differs, by relative path.

    For a video in a shard, only whether the shard is long enough.
    """
    found: dict[str, str] = {}
    sizes, times = manifest.column("size"), manifest.column("mtime_ns")
    for i in range(len(manifest)):
        path = manifest.relative_path(i)
        if path in found:
            continue
        place = shard_place(path) if manifest.info.shards else None
        try:
            now = (manifest.root / (path if place is None else place.shard)).stat()
        except OSError:
            found[path] = "missing"
            continue
        if place is not None:
            if now.st_size < place.start + place.size:
                found[path] = "size"
            continue
        if now.st_size != sizes[i]:
            found[path] = "size"
        elif now.st_mtime_ns != times[i]:
            found[path] = "time"
    return found


def leaks(manifest: Manifest) -> list[str]:
    """Return a line on each split that shares groups with the split ``train``."""
    splits, groups = manifest.words("split"), manifest.group_ids
    codes = manifest.column("split")
    if "train" not in manifest.splits:
        return []
    known = np.unique(groups[codes == splits.index("train")])
    lines = []
    for name in manifest.splits:
        of_split = groups[codes == splits.index(name)]
        shared = of_split[np.isin(of_split, known)]
        if name == "train" or not len(shared):
            continue
        words, found = manifest.words("group"), np.unique(shared)
        named = ", ".join(words[code] for code in found[:_NAMED])
        lines.append(
            f"{len(shared):,} of {len(of_split):,} videos of {name} are of {len(found):,} groups "
            f"(sources) that train has videos of, too, such as {named}: what is measured on them "
            "is too good"
        )
    return lines


def _first_of_file(manifest: Manifest) -> NDArray[np.int64]:
    """Return one row of each file."""
    _, first = np.unique(manifest.column("path").astype(str), return_index=True)
    return first.astype(np.int64, copy=False)


def _untrained(manifest: Manifest) -> dict[str, int]:
    """Count the labelled videos of other splits whose class has no video in ``train``."""
    if "train" not in manifest.splits:
        return {}
    labels = manifest.labels
    train = manifest.column("split") == manifest.words("split").index("train")
    known = np.unique(labels[train])
    if known.max(initial=-1) < 0:
        return {}
    rest = labels[~train]
    codes, counts = np.unique(rest[(rest >= 0) & ~np.isin(rest, known)], return_counts=True)
    return {manifest.classes[k]: int(n) for k, n in zip(codes, counts, strict=True)}


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
