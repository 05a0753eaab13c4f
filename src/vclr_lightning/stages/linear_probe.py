"""Linear probe: how well a classifier on frozen features predicts the classes of unseen videos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.cross_validation import Probe, Search
from vclr_lightning.evaluation.group_folds import joined, validated_by_group
from vclr_lightning.evaluation.probe_result import check_classes, run_probe
from vclr_lightning.evaluation.probes import PROBES
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.results import TITLES, Column, Result, Scalar, Table, percent, present
from vclr_lightning.stages.shared.classification import classification
from vclr_lightning.stages.shared.feature_provenance import feature_provenance
from vclr_lightning.stages.shared.labelled import (
    LabelledSplit,
    counts,
    labelled,
    labels_of,
    missing_classes_note,
    rejected_table,
    shared_groups_note,
)

if TYPE_CHECKING:
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.probe_result import ProbeResult
    from vclr_lightning.evaluation.store import FeatureStore
    from vclr_lightning.stages.features.extractor import FeatureExtractor


def linear_probe(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    probe: Probe | str = "svm",
    train_split: str = "train",
    test_split: str | None = None,
    few_groups: int = 10,
    folds: int = 5,
) -> Result:
    """Fit a classifier to the training videos' features, and predict the test videos' classes.

    Section 4.1 of the paper. Writes ``linear_probe.json`` (accuracies, chance, counts, settings),
    ``predictions.csv`` (each test video and its highest scores), ``scores.csv`` (which of them are
    right, with their groups), ``confusion.csv``, ``classes.csv``, ``report.html`` and, where there
    are any, ``rejected.csv``.

    Args:
        features: gives the features of a split; every rank calls it, the first one measures.
        directory: where the files go.
        probe: what is fitted; or ``"svm"`` (the paper's), ``"logistic"``, ``"knn"``,
            ``"batchnorm"`` with their defaults.
        train_split: what it is fitted to.
        test_split: what it is measured on; ``None``: ``val`` where there is one, else ``test``.
        few_groups: with fewer groups of test videos than this, the probe is cross-validated over
            all videos of both splits, too; 0: never.
        folds: of this cross-validation; groups stay whole.

    Returns:
        ``top1``, ``top5`` with more than five classes, ``mean_class``, and their chance levels;
        ``top1_folds``, where it is cross-validated; ``top1/low``, ``top1/high`` and so on: their
        intervals at 95 % over groups;
        ``train/videos``, ``train/groups``, ``train/left_out``, ``test/videos`` and so on: how many
        were used and left out. Empty on other ranks than the first.

    Raises:
        UserError: a split has no videos or no labels, all videos are of one class, features are
            not finite, or an argument is impossible.
    """
    if isinstance(probe, str):
        if probe not in PROBES:
            raise UserError(f"there is no probe {probe!r}; there are {', '.join(PROBES)}")
        probe = PROBES[probe]()
    test_split = features.test_split(test_split)
    if test_split == train_split:
        raise UserError(
            f"the probe would be measured on the videos of split {train_split} that it is fitted "
            "to; give another test_split"
        )
    check_count("few_groups", few_groups, least=0)
    check_count("folds", folds, least=2)
    _check(probe, features.data, train_split, test_split)
    stores = {split: features(split) for split in (train_split, test_split)}
    if not is_rank_zero():
        return Result(title="Linear probe")
    train, test = (
        labelled(what, stores[split], features.data, split)
        for what, split in (("training", train_split), ("test", test_split))
    )
    result = run_probe(probe, train.store, test.store)
    classes = test.store.classes
    largest = max(int(result.columns.max()), int(result.label.max()))
    top1 = result.accuracies["top1"]
    scalars, content = classification(
        result,
        classes=classes,
        num_classes=max(len(classes), largest + 1),
        paths=test.store.paths,
        groups=test.store.group_id.tolist(),
    )
    notes = _notes(result, train, test)
    over_all = None
    if len(set(test.store.group_id.tolist())) < few_groups:
        over_all, note = _cross_validated(probe, train.store, test.store, folds)
        notes.append(note)
    if over_all is None:  # no file of an earlier run stays
        content.append(Table(columns=(), rows=(), file="scores_folds", shown="file"))
    else:
        value, intervals = over_all.values["top1_folds"], over_all.intervals()
        chance = 1 / len(torch.unique(torch.cat([train.store.label, test.store.label])))
        scalars.append(
            Scalar("top1_folds", value, chance=chance, interval=intervals.get("top1_folds"))
        )
        content.append(over_all.table("scores_folds"))
    return present(
        Result(
            title="Classifier on frozen features",
            summary=(
                f"A classifier ({result.settings}) fitted to {len(train.store)} training videos "
                f"classifies {percent(top1)}% of {len(test.store)} test videos correctly; chance "
                f"level is {percent(result.chance['top1'])}%."
            ),
            scalars=scalars,
            notes=notes,
            content=[
                *content,
                *([] if result.search is None else [_search_table(result.search)]),
                rejected_table({train_split: train.rejected, test_split: test.rejected}),
            ],
            provenance=feature_provenance(train.store, test.store),
            numbers=counts(train, test),
            file="linear_probe",
            record={
                "accuracies": {one.name: one.value for one in scalars},
                "chance": result.chance,
                "settings": result.settings,
                "search": None if result.search is None else asdict(result.search),
                "train": {"split": train_split, "videos": len(train.store)},
                "test": {"split": test_split, "videos": len(test.store)},
                "features": dict(test.store.provenance),
            },
        ),
        directory,
    )


def _check(probe: Probe, data: VideoDataModule, train_split: str, test_split: str) -> None:
    """Refuse mistakes before features are extracted, which takes long."""
    labels_of(data, test_split, needed_by="a probe")
    labels = labels_of(data, train_split, needed_by="a probe")
    table, labelled = data.split(train_split), labels >= 0
    groups = torch.tensor([table.group_id(int(i)) for i in labelled.nonzero()[:, 0]])
    check_classes(labels[labelled])
    probe.check(labels[labelled], groups)


def _cross_validated(
    probe: Probe, train: FeatureStore, test: FeatureStore, folds: int
) -> tuple[VideoScores | None, str]:
    """Return which of all videos are right in turn, and what a reader has to know of that."""
    videos = joined(train, test)
    few = f"The test videos are of {len(set(test.group_id.tolist()))} groups only"
    try:
        right = validated_by_group(probe, videos, folds=folds)
    except UserError as error:
        return None, f"{few}, and the probe cannot be cross-validated: {error}."
    groups = videos.group_id.tolist()
    scores = VideoScores(
        videos=[*train.paths, *test.paths],
        groups=groups,
        measures={"top1_folds": right.double().numpy()},
    )
    return scores, (
        f"{few}: {TITLES['top1_folds']} is of all {len(groups)} videos of {scores.num_groups} "
        f"groups, in turn by a probe fitted to the others ({min(folds, scores.num_groups)} folds; "
        "a group is never on both sides)."
    )


def _notes(result: ProbeResult, train: LabelledSplit, test: LabelledSplit) -> list[str]:
    """Say what was left out of the numbers, or makes them easier or harder, a sentence each."""
    unseen = test.store
    return [
        *train.notes(),
        *test.notes(),
        *missing_classes_note(result.missing, unseen.label, unseen.classes, count_as="wrong"),
        *shared_groups_note(train.store.group_id, unseen.group_id, easy="easy to recognise"),
    ]


def _search_table(search: Search) -> Table:
    """Return the settings that were compared; the chosen one is marked."""
    folds = [Column(f"fold {i}", unit="%") for i in range(1, len(search.held_out) + 1)]
    return Table(
        title="Settings compared",
        text="Top-1 in % of training videos held out in turn; videos of one group (source) are "
        "never on both sides.",
        columns=[search.name, Column("mean", unit="%"), *folds, ""],
        rows=[
            (one.value, one.mean, *one.folds, "chosen" if one is search.best else "")
            for one in search.tried
        ],
    )
