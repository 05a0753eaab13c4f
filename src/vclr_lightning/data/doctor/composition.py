"""What a set of videos is made of: lengths, rates, sizes, codecs, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.manifest import summarise
from vclr_lightning.results import Column, Histogram, Histograms, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.manifest import Manifest

_KINDS = 8  # frame rates, sizes and codecs with a row of their own


def distributions(manifest: Manifest, frames: NDArray[np.float64]) -> Iterator[Histograms]:
    """Yield histograms of durations, ``frames`` of each row, rates, sizes and keyframes."""
    columns = {
        name: manifest.column(name).astype(np.float64)
        for name in ("duration", "fps", "keyframe_interval", "width", "height")
    }
    edge = np.fmin(columns["width"], columns["height"])
    charts = [
        Histogram(title=title, values=values[~np.isnan(values)].tolist())
        for title, values in (
            ("duration, seconds", columns["duration"]),
            ("frames", frames),
            ("frames per second", columns["fps"]),
            ("shorter side, pixels", edge),
            ("frames per keyframe", columns["keyframe_interval"]),
        )
        if not np.isnan(values).all()
    ]
    if charts:
        yield Histograms(
            charts=charts, title="Distributions", text="Videos by value; the dashed line: median."
        )


def kinds(manifest: Manifest) -> Iterator[Table]:
    """Yield tables of frame rates, sizes and codecs, the most frequent first."""
    rates = manifest.column("fps").astype(np.float64)
    named = Counter("unknown" if np.isnan(r) else f"{r:.4g}" for r in rates.tolist())
    summary = summarise(manifest)
    for title, head, counts in (
        ("Frame rates", "frames per second", dict(named.most_common())),
        ("Sizes", "pixels", summary.sizes),
        ("Codecs", "codec", summary.codecs),
    ):
        first = list(counts.items())[:_KINDS]
        rest = sum(counts.values()) - sum(n for _, n in first)
        rows = [*first, *([("others", rest)] if rest else [])]
        yield Table(title=title, columns=[head, "videos"], rows=rows, shown="page")


def class_table(manifest: Manifest) -> Table:
    """Return the videos of each class by split, the smallest class first."""
    splits, codes, labels = manifest.words("split"), manifest.column("split"), manifest.labels
    counts = np.zeros((manifest.num_classes, len(splits)), dtype=np.int64)
    np.add.at(counts, (labels[labels >= 0], codes[labels >= 0]), 1)
    used = [k for k, name in enumerate(splits) if name in manifest.splits]
    order = np.argsort(counts.sum(1), kind="stable").tolist()
    rows = [[manifest.classes[k], *counts[k, used].tolist(), int(counts[k].sum())] for k in order]
    return Table(
        title="Classes",
        columns=["class", *(splits[k] for k in used), Column("all", "together")],
        rows=rows,
        file="classes",
        shown="page",
    )
