"""What features without a network reach on the same videos: what a network has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.evaluation.encoders import TRIVIAL
from vclr_lightning.evaluation.features import extract_each
from vclr_lightning.evaluation.neighbours import search
from vclr_lightning.evaluation.probe_result import run_probe
from vclr_lightning.evaluation.probes import SVMProbe
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.results import Result, Table, bracket, percent, present
from vclr_lightning.stages.shared.labelled import labels_of

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import VideoTable
    from vclr_lightning.evaluation.features import FeatureSet
    from vclr_lightning.evaluation.store import FeatureStore
    from vclr_lightning.stages.features.extractor import FeatureExtractor

_SHORT = {"mean colour": "colour", "mean frame": "frame", "mean motion map": "motion"}
_MEASURES = {"r1": "R@1", "probe": "linear probe"}


def trivial_features(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    train_split: str = "train",
    test_split: str | None = None,
    gallery_videos: int = 8000,
    seed: int = 0,
) -> Result:
    """Measure mean colour, mean frame and mean motion map as features, and the network's beside.

    A network that reaches less than these has learned nothing that the pixels do not show: videos
    of one class are often of one scene. R@1 by cosine, and the paper's SVM on features of mean 0
    and variance 1 for all alike, since their scales have nothing in common. Writes
    ``trivial.json``, ``scores.csv`` and ``report.html``.

    Args:
        features: gives the videos, and the network's features.
        directory: where the files go.
        train_split: gallery, and what the probe is fitted to.
        test_split: what is measured; ``None``: ``val`` where there is one, else ``test``.
        gallery_videos: at most this many training videos, drawn by ``seed``; all frames are decoded
            each time.
        seed: of the draw.

    Returns:
        ``motion_r1``, ``motion_probe`` and so on; ``train/videos``, ``test/videos``,
        ``train/groups``, ``test/groups``. Empty on other ranks than the first.

    Raises:
        UserError: a split has no videos or no labels, or a number is out of its range.
    """
    check_count("gallery_videos", gallery_videos, least=2)
    test_split = features.test_split(test_split)
    for split in (train_split, test_split):
        labels_of(features.data, split, needed_by="the comparison with trivial features")
    of_network = {split: features(split) for split in (train_split, test_split)}
    if not is_rank_zero():
        return Result(title="Features without a network")
    rows = sorted(of_network[train_split].index.tolist())
    if len(rows) > gallery_videos:
        drawn = numpy_generator(seed, "trivial").permutation(len(rows))[:gallery_videos]
        rows = sorted(rows[i] for i in drawn.tolist())
        keep = torch.isin(of_network[train_split].index, torch.tensor(rows))
        of_network[train_split] = of_network[train_split].select(keep)
    table = features.data.split(test_split)
    pixels = {
        split: extract_each(
            TRIVIAL,
            features.data.frames_loader(split, rows=some, whole=True),
            segments=1,
            show=features.show,
            description=f"pixels, {split}",
        )
        for split, some in ((train_split, rows), (test_split, None))
    }
    network = _scored(of_network[train_split], of_network[test_split], table)
    kinds = {
        name: _scored(pixels[train_split][name], pixels[test_split][name], table)
        for name in TRIVIAL
    }
    first = next(iter(kinds.values()))
    scores = replace(
        first,
        measures={
            f"{_SHORT[name]}_{measure}": values
            for name, one in kinds.items()
            for measure, values in one.measures.items()
        },
    )
    train = next(iter(pixels[train_split].values())).labelled()
    drawn_note = (
        [f"{len(rows):,} training videos, drawn with seed {seed} (gallery_videos)."]
        if len(rows) == gallery_videos
        else []
    )
    best = highest(network, kinds)
    return present(
        Result(
            title="Features without a network",
            summary=(
                f"What the pixels alone reach on {len(first.videos)} test videos, beside the "
                "network."
            ),
            notes=[*best, *drawn_note],
            content=[_table(network, kinds), scores.table()],
            provenance={"network": features.weights, "split": test_split},
            numbers={
                **scores.values,
                "train/videos": len(train),
                "train/groups": len(set(train.group_id.tolist())),
                "test/videos": len(first.videos),
                "test/groups": first.num_groups,
            },
            file="trivial",
            record={
                "network": network.values,
                "features": {name: one.values for name, one in kinds.items()},
                "difference": {name: network.differences(one) for name, one in kinds.items()},
            },
        ),
        directory,
    )


def highest(network: VideoScores, kinds: Mapping[str, VideoScores]) -> list[str]:
    """Say for each measure which of the features without a network is highest, and how far off.

    Args:
        network: scores of the videos by the network's features.
        kinds: by the others, by name.

    Example:
        >>> import numpy as np
        >>> def scores(right):
        ...     measures = {"r1": np.array(right, dtype=float)}
        ...     return VideoScores(videos=list("abcd"), groups=list("abcd"), measures=measures)
        >>> highest(scores([1, 0, 1, 0]), {"mean motion map": scores([1, 1, 1, 1])})
        ['Without a network, mean motion map is highest by R@1: 100.0%; the network has 50.0%, \
-50.0 points [-100, 0], which is no difference.']
    """
    found = []
    for measure, value in network.values.items():
        best = max(kinds, key=lambda name: kinds[name].values[measure])
        text = (
            f"Without a network, {best} is highest by {_MEASURES[measure]}: "
            f"{percent(kinds[best].values[measure])}%; the network has {percent(value)}%"
        )
        if measure in (differences := network.differences(kinds[best])):
            points, low, high = differences[measure]
            verdict = ", which is no difference" if low <= 0 <= high else ""
            text += f", {100 * points:+z.1f} points {bracket((low, high))}{verdict}"
        found.append(f"{text}.")
    return found


def _scored(
    train: FeatureSet | FeatureStore, test: FeatureSet | FeatureStore, table: VideoTable
) -> VideoScores:
    """Measure features, all in the same way."""
    test = test.labelled()
    probe = run_probe(SVMProbe(standardize=True), train, test, show=False)
    rows = test.index.tolist()
    return VideoScores(
        videos=[str(table.path(row)) for row in rows],
        groups=test.group_id.tolist(),
        measures={
            "r1": search(train, test, ks=(1,)).hits[1].double().numpy(),
            "probe": probe.hits["top1"].double().numpy(),
        },
    )


def _table(network: VideoScores, kinds: Mapping[str, VideoScores]) -> Table:
    """Return a row for each kind of features, with the network's lead over it."""

    def cells(one: VideoScores, *, beaten: bool = True) -> Iterator[str]:
        intervals = one.intervals()
        leads = network.differences(one) if beaten else {}
        for measure, value in one.values.items():
            yield f"{percent(value)}\n{bracket(intervals.get(measure))}".strip()
            lead = leads.get(measure)
            yield "" if lead is None else f"{100 * lead[0]:+z.1f}\n{bracket(lead[1:])}"

    columns = [x for title in _MEASURES.values() for x in (title, "network ahead by")]
    return Table(
        title="",
        text="In %, with intervals at 95% from a bootstrap over groups, and how far the network is "
        "ahead on the same videos, in points. The probe standardizes each feature.",
        columns=["features", *columns],
        rows=[
            ["this network", *cells(network, beaten=False)],
            *([name, *cells(one)] for name, one in kinds.items()),
        ],
        marks=["strong", *[""] * len(kinds)],
    )
