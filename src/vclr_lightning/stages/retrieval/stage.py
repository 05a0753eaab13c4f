"""Retrieval: how often the training videos nearest to a test video are of its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.evaluation.neighbours import check_options, search
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.functional.embedding import Center
from vclr_lightning.functional.retrieval import KS
from vclr_lightning.results import Result, Scalar, percent, present
from vclr_lightning.stages.retrieval.neighbour_pictures import neighbour_pictures, save_pictures
from vclr_lightning.stages.retrieval.neighbour_tables import retrieval_tables
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
    from vclr_lightning.evaluation.retrieval_result import Retrieval
    from vclr_lightning.stages.features.extractor import FeatureExtractor


_CENTRED = {
    "gallery": "the mean of the training videos' features is subtracted from all",
    "each": "training and test videos' features are centred, each set by its own mean",
}


def retrieval(
    *,
    features: FeatureExtractor,
    directory: str | Path,
    train_split: str = "train",
    test_split: str | None = None,
    ks: Sequence[int] = KS,
    backend: str = "exact",
    device: str | None = None,
    leave_group_out: bool | None = None,
    center: Center = "none",
    standardize: bool = False,
    whiten: bool = False,
    listed: int = 10,
    pictures: int = 24,
    neighbours: int = 5,
    seed: int = 0,
) -> Result:
    """Look every test video up among the training videos (Section 4.1 of the paper).

    Writes ``retrieval.json`` (recall, chance, counts), ``retrieval.csv`` (each query's
    neighbours), ``retrieval_classes.csv`` (a line for each class), ``scores.csv`` (which of the
    queries have a hit, with their groups), ``report.html`` (queries and
    their neighbours as pictures), ``neighbours.png`` (some of them) and, where there are any,
    ``rejected.csv``.

    Args:
        features: gives the features of a split; every rank calls it, the first one measures.
        directory: where the files go.
        train_split: the gallery.
        test_split: the queries; ``None``: ``val`` where there is one, else ``test``.
        ks: numbers of neighbours to count.
        backend: ``"exact"``, or ``"faiss"``, which needs faiss-cpu and finds the same.
        device: where the exact search computes; by default on the CPU.
        leave_group_out: videos of the query's own group are no neighbours; ``None``: where both
            splits are the same.
        center: mean that is subtracted from the features first: ``"none"``; ``"gallery"``, that of
            the gallery from both sets; ``"each"``, from each set its own.
        standardize: then shift and scale each feature to mean 0 and variance 1 over the gallery.
        whiten: then whiten by the gallery, so that no few directions decide the cosines.
        listed: neighbours of each query in ``retrieval.csv``.
        pictures: queries on the page, half of them with the nearest video right; 0: no page.
        neighbours: of each query on the page.
        seed: of which queries are on the page.

    Returns:
        ``r1``, ``r5`` and so on, and their chance levels; ``r1/low``, ``r1/high`` and so on: their
        intervals at 95 % over groups; ``train/videos``, ``train/groups``, ``train/left_out``,
        ``test/videos`` and so on: how many were compared and left out. Empty on other ranks than
        the first.

    Raises:
        UserError: a split has no videos or no labels, or an argument is impossible.
    """
    for name, value, least in (
        ("listed", listed, 1),
        ("pictures", pictures, 0),
        ("neighbours", neighbours, 1),
        ("seed", seed, 0),
    ):
        check_count(name, value, least=least)
    test_split = features.test_split(test_split)
    if leave_group_out is None:
        leave_group_out = train_split == test_split
    # Mistakes are refused before features are extracted.
    if center not in get_args(Center):
        raise UserError(f"center={center!r} of retrieval must be none, gallery or each")
    check_options(ks=ks, backend=backend, leave_group_out=leave_group_out)
    options = _on(device, backend)
    for split in (test_split, train_split):
        labels_of(features.data, split, needed_by="retrieval")
    stores = {split: features(split) for split in (train_split, test_split)}
    if not is_rank_zero():
        return Result(title="Retrieval")
    train, test = (
        labelled(what, stores[split], features.data, split)
        for what, split in (("training", train_split), ("test", test_split))
    )
    result = search(
        train.store,
        test.store,
        ks=ks,
        backend=backend,
        leave_group_out=leave_group_out,
        center=center,
        standardize=standardize,
        whiten=whiten,
        listed=max(listed, neighbours),
        show=True,
        **options,
    )
    notes = _notes(result, train, test, ks=ks, leave_group_out=leave_group_out)
    if center != "none":
        notes.append(f"Before the search, {_CENTRED[center]}.")
    changed = [f"{n}={v}" for n, v in (("standardize", standardize), ("whiten", whiten)) if v]
    notes += [f"Before the search, {' and '.join(changed)} by the gallery."] if changed else []
    content: list[Any] = []
    if pictures:
        shown, unread = neighbour_pictures(
            result,
            train=train.store,
            test=test.store,
            data=features.data,
            queries=pictures,
            neighbours=neighbours,
            seed=seed,
        )
        content.append(shown)
        save_pictures(shown, Path(directory) / "neighbours.png")
        if unread:
            notes.append(
                f"{unread} of the videos below cannot be read and are shown without picture."
            )
    scores = VideoScores(
        videos=test.store.paths,
        groups=test.store.group_id.tolist(),
        classes=[class_name(label, test.store.classes) for label in test.store.label.tolist()],
        measures={f"r{k}": found.double().numpy() for k, found in result.hits.items()},
    )
    intervals = scores.intervals()
    scalars = [
        Scalar(f"r{k}", value, chance=result.chance[k], interval=intervals.get(f"r{k}"))
        for k, value in result.recall.items()
    ]
    first = result.ks[0]
    return present(
        Result(
            title="Nearest videos by frozen features",
            summary=(
                f"{len(result)} test videos, looked up among {len(train.store)} training videos by "
                f"cosine similarity. For {percent(result.recall[first])}% of them "
                + ("the nearest" if first == 1 else f"one of the {first} nearest")
                + f" is of their class; chance level is {percent(result.chance[first])}%."
            ),
            scalars=scalars,
            notes=notes,
            content=[
                *content,
                *retrieval_tables(result, train.store, test.store, listed=listed),
                scores.table(),
                rejected_table({train_split: train.rejected, test_split: test.rejected}),
            ],
            provenance=feature_provenance(train.store, test.store),
            numbers=counts(train, test),
            page="report.html" if pictures else "",
            file="retrieval",
            record={
                "recall": {one.name: one.value for one in scalars},
                "chance": {one.name: one.chance for one in scalars},
                "queries": {"split": test_split, "videos": len(test.store)},
                "gallery": {"split": train_split, "videos": len(train.store)},
                "features": dict(test.store.provenance),
            },
        ),
        directory,
    )


def _notes(
    result: Retrieval,
    train: LabelledSplit,
    test: LabelledSplit,
    *,
    ks: Sequence[int],
    leave_group_out: bool,
) -> list[str]:
    """Say what was left out of the numbers, or makes them easier or harder, a sentence each."""
    gallery, queries = train.store, test.store
    found = train.notes()
    if test.whole.folder != train.whole.folder:
        found += test.notes()
    found += missing_classes_note(
        result.missing, queries.label, queries.classes, count_as="not found"
    )
    if too_many := sorted(set(ks) - set(result.ks)):
        found.append(
            f"There is no {', '.join(f'R@{k}' for k in too_many)}: there are only "
            f"{len(gallery):,} training videos to find."
        )
    if leave_group_out:
        return [*found, "Videos of the query's own group are no neighbours."]
    return found + shared_groups_note(gallery.group_id, queries.group_id, easy="easy to find")


def _on(device: str | None, backend: str) -> dict[str, Any]:
    if device is None:
        return {}
    if backend != "exact":
        raise UserError(f"device={device} is for backend=exact; {backend} does not take it")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device} of the retrieval cannot be used here") from error
    return {"device": device}
