"""Linear probe: how well a classifier on frozen features predicts the classes of unseen videos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.cross_validation import Probe, Search
from vclr_lightning.evaluation.probe_result import check_classes, run_probe
from vclr_lightning.evaluation.probes import PROBES
from vclr_lightning.results import Column, Result, Table, percent, present
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
    from vclr_lightning.stages.features.extractor import FeatureExtractor


def linear_probe(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    probe: Probe | str = "svm",
    train_split: str = "train",
    test_split: str | None = None,
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

    Returns:
        ``top1``, ``top5`` with more than five classes, ``mean_class``, and their chance levels;
        ``top1/low``, ``top1/high`` and so on: their intervals at 95 % over groups;
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
    return present(
        Result(
            title="Classifier on frozen features",
            summary=(
                f"A classifier ({result.settings}) fitted to {len(train.store)} training videos "
                f"classifies {percent(top1)}% of {len(test.store)} test videos correctly; chance "
                f"level is {percent(result.chance['top1'])}%."
            ),
            scalars=scalars,
            notes=_notes(result, train, test),
            content=[
                *content,
                *([] if result.search is None else [_search_table(result.search)]),
                rejected_table({train_split: train.rejected, test_split: test.rejected}),
            ],
            provenance=feature_provenance(train.store, test.store),
            numbers=counts(train, test),
            file="linear_probe",
            record={
                "accuracies": result.accuracies,
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
