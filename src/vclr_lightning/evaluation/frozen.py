"""Compare frozen features: of a trained network, of untrained ones, of baselines, and chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.evaluation.features import FeatureSet, extract_each
from vclr_lightning.evaluation.probe_result import ProbeResult, check_classes
from vclr_lightning.evaluation.table import MEASURES, FrozenRow, FrozenTable
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.functional.accuracy import columns_of
from vclr_lightning.functional.embedding import standardized
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.functional.retrieval import chance_recall, first_hits, recall_at_k
from vclr_lightning.functional.svm import fit_linear_svm

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.core.types import FramesBatch
    from vclr_lightning.evaluation.encoders import Encode


def retrieval(
    train: FeatureSet,
    test: FeatureSet,
    *,
    ordered: bool = False,
    ks: tuple[int, ...] = (1, 5, 10, 20, 50),
) -> dict[str, float]:
    """Recall at k of the test videos among the training videos (Section 4.1 of the paper).

    Args:
        train: the gallery.
        test: the queries.
        ordered: compare the concatenated features of the parts instead of their average.
        ks: numbers of neighbours; those beyond the size of the gallery are left out.

    Returns:
        ``r1``, ``r5`` and so on.

    Raises:
        UserError: videos have no label.
    """
    train, test = train.labelled(), test.labelled()
    recalls = recall_at_k(
        _matrix(test, ordered),
        _matrix(train, ordered),
        query_labels=test.label,
        gallery_labels=train.label,
        ks=tuple(k for k in ks if k == min(ks) or k <= len(train)),
    )
    return {f"r{k}": value for k, value in recalls.items()}


def linear_probe(
    train: FeatureSet,
    test: FeatureSet,
    *,
    ordered: bool = False,
    cost: float = 1.0,
    standardize: bool = False,
) -> dict[str, float]:
    """Accuracy of a linear SVM on frozen features (Section 4.1 of the paper).

    The SVM is LIBLINEAR's ``-s 2 -c cost`` without a bias, on unscaled features. Its result depends
    on their scale, so standardize features to compare different kinds.

    Args:
        train: videos to fit.
        test: videos to evaluate.
        ordered: use the concatenated features of the parts instead of their average.
        cost: C.
        standardize: shift and scale each feature to mean 0 and variance 1 over the training videos.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_class``.

    Raises:
        UserError: videos have no label, there is only one class, or features are not finite.
    """
    return _probed(train, test, ordered=ordered, cost=cost, standardize=standardize).accuracies


def _probed(
    train: FeatureSet, test: FeatureSet, *, ordered: bool, cost: float, standardize: bool
) -> ProbeResult:
    train, test = train.labelled(), test.labelled()
    classes = check_classes(train.label)
    known, unseen = _matrix(train, ordered), _matrix(test, ordered)
    if standardize:
        known, unseen = standardized(known, unseen)
    targets = columns_of(train.label, classes)
    fit = fit_linear_svm(known, targets, num_classes=len(classes), cost=cost)
    return ProbeResult(
        scores=unseen @ fit.weight.T,
        columns=classes,
        label=test.label,
        train_label=train.label,
        settings=f"SVM, C = {cost:g}",
    )


def chance(train: FeatureSet, test: FeatureSet) -> dict[str, float]:
    """Return the chance levels ``r1``, ``top1`` and ``mean_class``.

    Raises:
        UserError: videos have no label.
    """
    train, test = train.labelled(), test.labelled()
    share = 1 / len(set(train.label.tolist()))
    r1 = chance_recall(test.label, train.label, ks=(1,))[1]
    return {"r1": r1, "top1": share, "mean_class": share}


def _nearest_right(train: FeatureSet, test: FeatureSet, *, ordered: bool) -> Tensor:
    """Whether the nearest training video of each test video is of its class, ``(M,)`` bool."""
    train, test = train.labelled(), test.labelled()
    queries, gallery = _matrix(test, ordered), _matrix(train, ordered)
    _, positions = cosine_neighbours(queries, gallery, 1)
    return first_hits(positions, test.label, train.label) == 1


def _matrix(features: FeatureSet, ordered: bool) -> Tensor:
    return (features.concatenated if ordered else features.mean).double()


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
    """Evaluate frozen features on labelled videos: R@1 and a linear probe.

    Every video is read once, whatever the number of encoders. Both metrics are computed with the
    average features of a video, which are blind to temporal order, and with the concatenated
    features of ``segments`` parts, which are not.

    Args:
        encoders: by name, one encoder for each seed.
        train: frames of the training videos.
        test: frames of the test videos.
        segments: S, parts of a video.
        cost: C of the linear probe.
        standardize: shift and scale each feature to mean 0 and variance 1 before the probe: fair to
            features of different scale, but not the paper's protocol.
        device: where the encoders take the frames.
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
    """Evaluate extracted features; see :func:`frozen_evaluation`.

    Args:
        train: of the training videos, by name, one set for each seed.
        test: of the test videos, under the same names.
        cost: C of the linear probe.
        standardize: shift and scale each feature to mean 0 and variance 1 before the probe.

    Raises:
        UserError: videos have no label, or features are not finite.
    """

    def evaluate(known: FeatureSet, unseen: FeatureSet) -> dict[str, Tensor]:
        probe = partial(_probed, known, unseen, cost=cost, standardize=standardize)
        return {
            "r1": _nearest_right(known, unseen, ordered=False),
            "r1_ordered": _nearest_right(known, unseen, ordered=True),
            "probe": probe(ordered=False).hits["top1"],
            "probe_ordered": probe(ordered=True).hits["top1"],
        }

    rows: list[FrozenRow] = []
    of_each: dict[str, VideoScores] = {}
    for name, sets in train.items():
        seeds = [evaluate(*pair) for pair in zip(sets, test[name], strict=True)]
        right = {m: torch.stack([one[m] for one in seeds]).double() for m in MEASURES}
        videos = test[name][0].labelled()
        scores = of_each[name] = VideoScores(
            videos=[str(row) for row in videos.index.tolist()],
            groups=videos.group_id.tolist(),
            measures={m: found.mean(dim=0).numpy() for m, found in right.items()},
        )
        others = [one for kind, one in of_each.items() if kind != name]
        rows.append(
            FrozenRow(
                name,
                {m: tuple(found.mean(dim=1).tolist()) for m, found in right.items()},
                scores.intervals(),
                of_each[next(iter(train))].differences(scores) if others else {},
            )
        )
    name = next(iter(train))
    known, unseen = train[name][0], test[name][0]
    by_chance = chance(known, unseen)
    r1, top1 = (by_chance["r1"],), (by_chance["top1"],)
    chance_levels = {"r1": r1, "r1_ordered": r1, "probe": top1, "probe_ordered": top1}
    return FrozenTable(
        rows=(*rows, FrozenRow("chance", chance_levels)),
        train_videos=int((known.label >= 0).sum()),
        test_videos=int((unseen.label >= 0).sum()),
        segments=known.segments.shape[1],
        groups=len(set(unseen.labelled().group_id.tolist())),
    )
