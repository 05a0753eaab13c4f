"""Compare frozen features: a trained network, untrained ones, trivial features, chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vclr_lightning.evaluation.features import FeatureSet, extract_each
from vclr_lightning.evaluation.measures import chance, linear_probe, retrieval
from vclr_lightning.evaluation.table import MEASURES, FrozenRow, FrozenTable

if TYPE_CHECKING:
    import torch

    from vclr_lightning.core.types import FramesBatch
    from vclr_lightning.evaluation.encoders import Encode


def measure(
    train: FeatureSet, test: FeatureSet, *, cost: float = 1.0, standardize: bool = False
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
    standardize: bool = False,
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
        standardize: bring each feature to mean 0 and variance 1 before the probe: fair to kinds of
            features with different scales, which the paper does not compare.
        device: where the encoders want the frames.
        show: show progress bars.

    Raises:
        UserError: videos have no label, cannot be read, or features are not finite.
    """
    extract = partial(extract_seeds, encoders, segments=segments, device=device, show=show)
    known = extract(train, description="features, train")
    unseen = extract(test, description="features, test")
    return compare_features(known, unseen, cost=cost, standardize=standardize)


def extract_seeds(
    encoders: Mapping[str, Sequence[Encode]], loader: Iterable[FramesBatch], **options: Any
) -> dict[str, list[FeatureSet]]:
    """Encode the same videos by every seed's encoder, reading them once.

    Args:
        encoders: by name, one encoder for each seed.
        loader: frames of the videos.
        options: see :func:`~vclr_lightning.evaluation.features.extract_each`.
    """
    flat = {f"{name}/{seed}": e for name, some in encoders.items() for seed, e in enumerate(some)}
    found = iter(extract_each(flat, loader, **options).values())
    return {name: [next(found) for _ in some] for name, some in encoders.items()}


def compare_features(
    train: Mapping[str, Sequence[FeatureSet]],
    test: Mapping[str, Sequence[FeatureSet]],
    *,
    cost: float = 1.0,
    standardize: bool = False,
) -> FrozenTable:
    """Measure features that are there already; see :func:`frozen_evaluation`.

    Args:
        train: of the gallery, by name, one set for each seed.
        test: of the videos to measure, under the same names.
        cost: C of the linear probe.
        standardize: bring each feature to mean 0 and variance 1 before the probe.

    Raises:
        UserError: videos have no label, or features are not finite.
    """
    rows = []
    for name, known in train.items():
        seeds = [
            measure(one, other, cost=cost, standardize=standardize)
            for one, other in zip(known, test[name], strict=True)
        ]
        rows.append(FrozenRow(name, {m: tuple(one[m] for one in seeds) for m in MEASURES}))
    name = next(iter(train))
    first, unseen = train[name][0], test[name][0]
    return FrozenTable(
        rows=(*rows, chance_row(first, unseen)),
        train_videos=int((first.label >= 0).sum()),
        test_videos=int((unseen.label >= 0).sum()),
        segments=first.segments.shape[1],
    )


def chance_row(train: FeatureSet, test: FeatureSet) -> FrozenRow:
    """Return what features without information reach."""
    by_chance = chance(train, test)
    r1, top1 = (by_chance["r1"],), (by_chance["top1"],)
    return FrozenRow("chance", {"r1": r1, "r1_ordered": r1, "probe": top1, "probe_ordered": top1})
