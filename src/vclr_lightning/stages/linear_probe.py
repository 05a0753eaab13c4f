"""Linear probe: how well a classifier on frozen features tells the classes of unseen videos."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import is_new, show, wrote
from vclr_lightning.evaluation.neighbour_tables import class_name, confusion_rows, percent
from vclr_lightning.evaluation.outcomes import MEASURES, Measured
from vclr_lightning.evaluation.probe_result import check_classes, run_probe
from vclr_lightning.evaluation.probe_tables import (
    accuracy_table,
    class_rows,
    class_table,
    search_rows,
    search_table,
    write_class_results,
    write_confusion,
    write_predictions,
)
from vclr_lightning.evaluation.probes import PROBES
from vclr_lightning.evaluation.probing import Probe
from vclr_lightning.evaluation.retrieval_result import confusions
from vclr_lightning.report.content import Score
from vclr_lightning.report.probe import ProbePage, write_probe_page
from vclr_lightning.stages.shared.facts import feature_facts
from vclr_lightning.stages.shared.rejected import write_rejected
from vclr_lightning.stages.shared.remarks import (
    Used,
    labels_of,
    missing_classes,
    shared_groups,
    used,
)

if TYPE_CHECKING:
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.probe_result import ProbeResult
    from vclr_lightning.evaluation.store import FeatureStore
    from vclr_lightning.stages.features.extractor import FeatureExtractor

logger = logging.getLogger(__name__)

CONFUSIONS = 12  # pairs of classes on the page


def linear_probe(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    probe: Probe | str = "svm",
    train_split: str = "train",
    test_split: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Measured:
    """Fit a classifier to the training videos' features, and tell the test videos' classes by it.

    Section 4.1 of the paper. Writes ``linear_probe.json`` (accuracies, chance, counts, settings),
    ``predictions.csv`` (each test video and its highest scores), ``confusion.csv``,
    ``classes.csv``, ``report.html`` and, where there are any, ``rejected.csv``.

    Args:
        features: gives the features of a split; every rank calls it, the first one measures.
        directory: where the files go.
        probe: what is fitted; or ``"svm"`` (the paper's), ``"logistic"``, ``"knn"`` with their
            defaults.
        train_split: what it is fitted to.
        test_split: what it is measured on; ``None``: ``val`` where there is one, else ``test``.
        metadata: plain values; ``version`` is kept with the results.

    Returns:
        ``top1``, ``top5`` with more than five classes, ``mean_class``: shares from 0 to 1;
        ``chance/top1`` and so on; ``train/videos`` and ``test/videos``, how many were used, and
        ``train/left_out`` and ``test/left_out``, how many were not; with ``notes``.

    Raises:
        UserError: a split has no videos or no labels, all videos are of one class, features are
            not finite, or an argument is impossible.
    """
    if isinstance(probe, str):
        if probe not in PROBES:
            raise UserError(f"there is no probe {probe!r}; there are {', '.join(PROBES)}")
        probe = PROBES[probe]()
    directory = Path(directory)
    test_split = features.test_split(test_split)
    if test_split == train_split:
        raise UserError(
            f"the probe would be measured on the videos of split {train_split} that it is fitted "
            "to; give another test_split"
        )
    _check(probe, features.data, train_split, test_split)
    stores = {split: features(split) for split in (train_split, test_split)}
    if not is_rank_zero():
        return Measured({})
    of_train = used("training", stores[train_split], features.data, train_split)
    of_test = used("test", stores[test_split], features.data, test_split)
    train, test = of_train.store, of_test.store
    result = run_probe(probe, train, test)
    notes = remarks(result, of_train, of_test)
    for note in filter(is_new, notes):
        logger.info("%s", note)
    _write(directory, result, train, test, notes, metadata or {})
    write_rejected(
        directory / "rejected.csv", {train_split: of_train.listed, test_split: of_test.listed}
    )
    _print(result, test.classes)
    wrote(_page(directory / "report.html", result, train, test, notes))
    chance = {f"chance/{name}": share for name, share in result.chance.items()}
    counts = {"train/videos": len(train), "test/videos": len(test)}
    counts |= {"train/left_out": of_train.left_out, "test/left_out": of_test.left_out}
    return Measured(result.accuracies | chance | counts, notes=notes)


def _check(probe: Probe, data: VideoDataModule, train_split: str, test_split: str) -> None:
    """Tell what is wrong before features are extracted, which takes long."""
    labels_of(data, test_split, needed_by="a probe")
    labels = labels_of(data, train_split, needed_by="a probe")
    table, labelled = data.split(train_split), labels >= 0
    groups = torch.tensor([table.group_id(int(i)) for i in labelled.nonzero()[:, 0]])
    check_classes(labels[labelled])
    probe.check(labels[labelled], groups)


def remarks(result: ProbeResult, train: Used, test: Used) -> list[str]:
    """Say what was left out of the numbers, or makes them easier or harder, a sentence each.

    Args:
        result: of the probe.
        train, test: the videos that were used, and those that were not.
    """
    known, unseen = train.store, test.store
    return [
        *train.remarks(),
        *test.remarks(),
        *missing_classes(result.missing, unseen.label, unseen.classes, count_as="wrong"),
        *shared_groups(known, unseen, easy="easy to recognise"),
    ]


def _write(
    directory: Path,
    result: ProbeResult,
    train: FeatureStore,
    test: FeatureStore,
    notes: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    search = result.search
    content: dict[str, Any] = {
        "accuracies": result.accuracies,
        "chance": result.chance,
        "settings": result.settings,
        "search": None if search is None else asdict(search),
        "train": {"split": train.provenance.get("split"), "videos": len(train)},
        "test": {"split": test.provenance.get("split"), "videos": len(test)},
        "notes": list(notes),
        "features": dict(test.provenance),
        "version": metadata.get("version"),
    }
    with replacing(directory / "linear_probe.json") as sink:
        sink.write(json.dumps(content, indent=1).encode())
    classes = test.classes
    write_predictions(directory / "predictions.csv", result, paths=test.paths, classes=classes)
    write_confusion(directory / "confusion.csv", result.confusion(_classes(result, test)), classes)
    write_class_results(directory / "classes.csv", result, classes)


def _classes(result: ProbeResult, test: FeatureStore) -> int:
    """Number of classes: those with a name, or as many as the labels need."""
    largest = max(int(result.columns.max()), int(result.label.max()))
    return max(len(test.classes), largest + 1)


def _page(
    path: Path,
    result: ProbeResult,
    train: FeatureStore,
    test: FeatureStore,
    notes: Sequence[str],
) -> Path:
    accuracies, chance = result.accuracies, result.chance
    # Classes that neither split has would only be empty rows.
    present = torch.unique(torch.cat([result.columns, result.label]))
    confusion = result.confusion(_classes(result, test))[present][:, present]
    mistakes = confusions(result.label, result.predicted)[:CONFUSIONS]
    page = ProbePage(
        title="Classifier on frozen features",
        summary=(
            f"A classifier ({result.settings}) fitted to {len(train)} training videos classifies "
            f"{percent(accuracies['top1'])}% of {len(test)} test videos correctly; chance level is "
            f"{percent(chance['top1'])}%."
        ),
        scores=[Score(MEASURES[name], share, chance[name]) for name, share in accuracies.items()],
        notes=notes,
        search=search_rows(result.search) if result.search is not None else (),
        confusion=confusion,
        names=[class_name(label, test.classes) for label in present.tolist()],
        confusions=confusion_rows(mistakes, test.classes, taken="predicted class")
        if mistakes
        else (),
        classes=class_rows(result.by_class(), test.classes),
        facts=feature_facts(train, test),
    )
    return write_probe_page(path, page)


def _print(result: ProbeResult, classes: Sequence[str]) -> None:
    search = [] if result.search is None else [search_table(result.search)]
    show(*search, accuracy_table(result), class_table(result, classes))
