"""Retrieval: how often the training videos nearest to a test video are of its class."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.core.screen import is_new, show, wrote
from vclr_lightning.evaluation.neighbour_tables import (
    class_table,
    recall_table,
    write_classes,
    write_queries,
)
from vclr_lightning.evaluation.neighbours import check_options, search
from vclr_lightning.evaluation.outcomes import Measured
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.functional.retrieval import KS
from vclr_lightning.stages.retrieval.page import write_retrieval_page
from vclr_lightning.stages.shared.rejected import write_rejected
from vclr_lightning.stages.shared.remarks import (
    Used,
    labels_of,
    missing_classes,
    shared_groups,
    used,
)

if TYPE_CHECKING:
    from vclr_lightning.evaluation.retrieval_result import Retrieval
    from vclr_lightning.stages.features.extractor import FeatureExtractor

logger = logging.getLogger(__name__)


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
    listed: int = 10,
    pictures: int = 24,
    neighbours: int = 5,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
) -> Measured:
    """Look every test video up among the training videos (Section 4.1 of the paper).

    Writes ``retrieval.json`` (recall, chance, counts), ``retrieval.csv`` (each query's
    neighbours), ``retrieval_classes.csv`` (a line for each class), ``report.html`` (queries and
    their neighbours as pictures) and, where there are any, ``rejected.csv``.

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
        listed: neighbours of each query in ``retrieval.csv``.
        pictures: queries on the page, half of them with the nearest video right; 0: no page.
        neighbours: of each query on the page.
        seed: of which queries are on the page.
        metadata: plain values; ``version`` is kept with the results.

    Returns:
        ``r1``, ``r5`` and so on, shares from 0 to 1; ``chance/r1`` and so on; ``train/videos`` and
        ``test/videos``, how many were compared, and ``train/left_out`` and ``test/left_out``, how
        many were not; with ``notes``.

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
    directory = Path(directory)
    test_split = features.test_split(test_split)
    if leave_group_out is None:
        leave_group_out = train_split == test_split
    # A mistake is told before features are extracted.
    check_options(ks=ks, backend=backend, leave_group_out=leave_group_out)
    options = _on(device, backend)
    for split in (test_split, train_split):
        labels_of(features.data, split, needed_by="retrieval")
    stores = {split: features(split) for split in (train_split, test_split)}
    if not is_rank_zero():
        return Measured({})
    of_train = used("training", stores[train_split], features.data, train_split)
    of_test = used("test", stores[test_split], features.data, test_split)
    train, test = of_train.store, of_test.store
    result = search(
        train,
        test,
        ks=ks,
        backend=backend,
        leave_group_out=leave_group_out,
        listed=max(listed, neighbours),
        show=True,
        **options,
    )
    directory.mkdir(parents=True, exist_ok=True)
    notes = remarks(result, of_train, of_test, ks=ks, leave_group_out=leave_group_out)
    for note in filter(is_new, notes):
        logger.info("%s", note)
    values = {f"r{k}": share for k, share in result.recall.items()}
    content: dict[str, Any] = {
        "recall": values,
        "chance": {f"r{k}": share for k, share in result.chance.items()},
        "queries": {"split": test_split, "videos": len(test)},
        "gallery": {"split": train_split, "videos": len(train)},
        "notes": notes,
        "features": dict(test.provenance),
        "version": (metadata or {}).get("version"),
    }
    with replacing(directory / "retrieval.json") as sink:
        sink.write(json.dumps(content, indent=1).encode())
    write_queries(
        directory / "retrieval.csv",
        result,
        classes=test.classes,
        queries=test.paths,
        gallery=train.paths,
        neighbours=listed,
    )
    write_classes(directory / "retrieval_classes.csv", result, test.classes)
    write_rejected(
        directory / "rejected.csv", {train_split: of_train.listed, test_split: of_test.listed}
    )
    show(recall_table(result), class_table(result, test.classes))
    if pictures:
        page = write_retrieval_page(
            directory / "report.html",
            result,
            train=train,
            test=test,
            data=features.data,
            queries=pictures,
            neighbours=neighbours,
            seed=seed,
            notes=notes,
        )
        wrote(page)
    chance = {f"chance/r{k}": share for k, share in result.chance.items()}
    counts = {"train/videos": len(train), "test/videos": len(test)}
    counts |= {"train/left_out": of_train.left_out, "test/left_out": of_test.left_out}
    return Measured(values | chance | counts, notes=notes)


def remarks(
    result: Retrieval, train: Used, test: Used, *, ks: Sequence[int], leave_group_out: bool
) -> list[str]:
    """Say what was left out of the numbers, or makes them easier or harder, a sentence each.

    Args:
        result: what was found.
        train, test: the videos that were compared, and those that were not.
        ks: numbers of neighbours that were asked for.
        leave_group_out: whether videos of the query's own group were no neighbours.
    """
    gallery, queries = train.store, test.store
    found = train.remarks()
    if test.whole.folder != train.whole.folder:
        found += test.remarks()
    found += missing_classes(result.missing, queries.label, queries.classes, count_as="not found")
    if too_many := sorted(set(ks) - set(result.ks)):
        found.append(
            f"There is no {', '.join(f'R@{k}' for k in too_many)}: there are only "
            f"{len(gallery):,} training videos to find."
        )
    if leave_group_out:
        return [*found, "Videos of the query's own group are no neighbours."]
    return found + shared_groups(gallery, queries, easy="easy to find")


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
