"""Compare frozen features: a trained network, untrained ones, trivial features, chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from vclr_lightning.evaluation.features import FeatureSet, extract_each
from vclr_lightning.evaluation.measures import chance, linear_probe, retrieval

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from vclr_lightning.core.types import FramesBatch
    from vclr_lightning.evaluation.encoders import Encode

MEASURES = {
    "r1": "R@1",
    "r1_ordered": "R@1, in order",
    "probe": "linear probe",
    "probe_ordered": "linear probe, in order",
}


@dataclass(frozen=True)
class FrozenRow:
    """One kind of features, measured once for each seed.

    Attributes:
        name: what they are, such as ``"VCLR"`` or ``"untrained"``.
        values: per measure of :data:`MEASURES`, one number for each seed.
    """

    name: str
    values: Mapping[str, tuple[float, ...]]

    def text(self, measure: str) -> str:
        """Return a mean in percent, with the spread over seeds where there are several.

        Example:
            >>> FrozenRow("VCLR", {"r1": (0.5, 0.6)}).text("r1")
            '55.0 ± 7.1'
        """
        numbers = [100 * value for value in self.values.get(measure, ())]
        if not numbers:
            return ""
        spread = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
        return f"{mean(numbers):.1f}{spread}"


@dataclass(frozen=True)
class FrozenTable:
    """Rows to compare; the last is chance.

    Attributes:
        rows: in the order they were given, then chance.
        train_videos: in the gallery, and what the probe is fitted to.
        test_videos: measured.
        segments: parts of a video whose features are compared in order.
    """

    rows: tuple[FrozenRow, ...]
    train_videos: int
    test_videos: int
    segments: int

    def row(self, name: str) -> FrozenRow:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a JSON file."""
        return {
            "train_videos": self.train_videos,
            "test_videos": self.test_videos,
            "segments": self.segments,
            "rows": {
                row.name: {measure: list(values) for measure, values in row.values.items()}
                for row in self.rows
            },
        }

    def table(self) -> Table:
        """Return a table for the terminal."""
        from rich.table import Table

        seeds = max(len(values) for row in self.rows for values in row.values.values())
        spread = f"; mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
        table = Table(
            title=f"frozen features, % of {self.test_videos} unseen videos{spread}",
            caption=f"in order: {self.segments} parts of a video behind each other, not averaged",
        )
        table.add_column("features")
        for label in MEASURES.values():
            table.add_column(label, justify="right")
        for row in self.rows:
            table.add_row(row.name, *(row.text(measure) for measure in MEASURES))
        return table


def measure(
    train: FeatureSet, test: FeatureSet, *, cost: float = 1.0, standardize: bool = True
) -> dict[str, float]:
    """Return all of :data:`MEASURES` for one kind of features.

    Raises:
        UserError: videos have no label, or features are not finite.
    """
    probe = partial(linear_probe, train, test, cost=cost, standardize=standardize)
    return {
        "r1": retrieval(train, test, ks=(1,))["r1"],
        "r1_ordered": retrieval(train, test, ks=(1,), ordered=True)["r1"],
        "probe": probe()["top1"],
        "probe_ordered": probe(ordered=True)["top1"],
    }


def frozen_evaluation(
    encoders: Mapping[str, Sequence[Encode]],
    *,
    train: Iterable[FramesBatch],
    test: Iterable[FramesBatch],
    segments: int = 3,
    cost: float = 1.0,
    standardize: bool = True,
    device: torch.device | str = "cpu",
    show: bool = True,
) -> FrozenTable:
    """Measure frozen features on labelled videos: R@1 and a linear probe.

    Every video is read once, whatever the number of encoders. Both measures are taken of the
    features averaged over a video, which cannot tell its order, and of those of ``segments`` parts
    behind each other, which can.

    Args:
        encoders: by name, one encoder for each seed.
        train: frames of the videos to learn from.
        test: frames of the videos to measure.
        segments: S, parts of a video.
        cost: C of the linear probe.
        standardize: bring each feature to mean 0 and variance 1 before the probe, so that kinds of
            features with different scales are compared fairly.
        device: where the encoders want the frames.
        show: show progress bars.

    Raises:
        UserError: videos have no label, cannot be read, or features are not finite.
    """
    keyed = {f"{name}/{seed}": e for name, some in encoders.items() for seed, e in enumerate(some)}
    extract = partial(extract_each, keyed, segments=segments, device=device, show=show)
    known = extract(train, description="features, train")
    unseen = extract(test, description="features, test")
    measured = {
        key: measure(known[key], unseen[key], cost=cost, standardize=standardize) for key in keyed
    }
    rows = [
        FrozenRow(
            name,
            {
                m: tuple(measured[f"{name}/{seed}"][m] for seed in range(len(some)))
                for m in MEASURES
            },
        )
        for name, some in encoders.items()
    ]
    first = next(iter(keyed))
    return FrozenTable(
        rows=(*rows, chance_row(known[first], unseen[first])),
        train_videos=int((known[first].label >= 0).sum()),
        test_videos=int((unseen[first].label >= 0).sum()),
        segments=segments,
    )


def chance_row(train: FeatureSet, test: FeatureSet) -> FrozenRow:
    """Return what features without information reach."""
    by_chance = chance(train, test)
    r1, top1 = (by_chance["r1"],), (by_chance["top1"],)
    return FrozenRow("chance", {"r1": r1, "r1_ordered": r1, "probe": top1, "probe_ordered": top1})
