"""The page of a retrieval, from what was found and the videos themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.evaluation.neighbour_tables import (
    class_name,
    class_rows,
    confusion_rows,
    percent,
)
from vclr_lightning.report.content import Score
from vclr_lightning.report.neighbours import Lookup, NeighbourPage, Pictured, write_neighbours
from vclr_lightning.stages.retrieval.pictures import middle_pictures
from vclr_lightning.stages.shared.facts import feature_facts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.retrieval_result import Retrieval
    from vclr_lightning.evaluation.store import FeatureStore

CONFUSIONS = 12


def write_retrieval_page(
    path: str | Path,
    result: Retrieval,
    *,
    train: FeatureStore,
    test: FeatureStore,
    data: VideoDataModule,
    queries: int = 24,
    neighbours: int = 5,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Path:
    """Write a page of queries and their nearest videos, as the middle frame of each.

    Args:
        path: of the page.
        result: what was found.
        train: the gallery.
        test: the queries.
        data: where the videos are.
        queries: how many to show, half of them with the nearest video right as far as there are.
        neighbours: of each.
        seed: of the choice.
        notes: what a reader has to know of the numbers.

    Raises:
        UserError: the page cannot be written.
    """
    right, wrong = choose(result, queries, seed)
    chosen = alternating(right, wrong)
    lookups, unread = _lookups(result, chosen, neighbours, train, test, data)
    number = int((result.first_hit == 1).sum())
    rest = len(result) - number
    notes = list(notes)
    if unread:
        notes.append(f"{unread} of the videos below cannot be read and are shown without picture.")
    k = result.ks[0]
    confusions = result.confusions()[:CONFUSIONS]
    page = NeighbourPage(
        title="Nearest videos by frozen features",
        summary=(
            f"{len(result)} test videos, looked up among {len(result.gallery_label)} training "
            f"videos by cosine similarity. For {percent(result.recall[k])}% of them "
            + ("the nearest is of their class" if k == 1 else f"one of the {k} nearest is")
            + f"; chance level is {percent(result.chance[k])}%."
        ),
        scores=[Score(f"R@{k}", result.recall[k], result.chance[k]) for k in result.ks],
        notes=notes,
        lookups={
            f"{len(right)} of the {number} whose nearest is right, and {len(wrong)} of the {rest} "
            f"whose nearest is wrong, drawn with seed {seed}": [lookups[i] for i in chosen]
        },
        classes=class_rows(result.by_class(), test.classes),
        confusions=confusion_rows(confusions, test.classes) if confusions else (),
        facts=feature_facts(train, test),
    )
    return write_neighbours(path, page)


def choose(result: Retrieval, number: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw queries whose nearest video is right, and others, from as many classes as there are.

    Half each, or more of one kind where there are fewer of the other.

    Args:
        result: what was found.
        number: of queries, in all.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    hit = (result.first_hit == 1).numpy()
    labels = result.query_label.numpy()
    right, wrong = (_spread(np.flatnonzero(kind), labels, rng) for kind in (hit, ~hit))
    count = min(len(wrong), max(number // 2, number - len(right)))
    return right[: number - count], wrong[:count]


def alternating(right: Sequence[int], wrong: Sequence[int]) -> list[int]:
    """Return both in turn, as the paper's figure shows them; what one has more comes last.

    Example:
        >>> alternating([1, 2, 3], [7])
        [1, 7, 2, 3]
    """
    pairs = zip_longest(right, wrong)
    return [row for pair in pairs for row in pair if row is not None]


def _spread(
    rows: NDArray[np.int64], labels: NDArray[np.int64], rng: np.random.Generator
) -> list[int]:
    """Shuffle rows so that every class comes once before any comes twice."""
    seen: dict[int, int] = {}
    ranked = []
    for place, row in enumerate(rng.permutation(rows).tolist()):
        label = int(labels[row])
        ranked.append((seen.get(label, 0), place, row))
        seen[label] = seen.get(label, 0) + 1
    return [row for _, _, row in sorted(ranked)]


def _lookups(
    result: Retrieval,
    chosen: Sequence[int],
    neighbours: int,
    train: FeatureStore,
    test: FeatureStore,
    data: VideoDataModule,
) -> tuple[dict[int, Lookup], int]:
    """Return what to show of each chosen query, and how many videos have no picture."""
    nearest = {i: [p for p in result.position[i, :neighbours].tolist() if p >= 0] for i in chosen}
    shown = {"test": list(chosen), "train": [p for some in nearest.values() for p in some]}
    videos: dict[tuple[str, int], Pictured] = {}
    unread = 0
    for side, store in (("test", test), ("train", train)):
        positions = sorted(set(shown[side]))
        rows = {p: int(store.index[p]) for p in positions}
        pictures, rejected = middle_pictures(
            data.split(str(store.provenance["split"])), rows.values(), data.reader
        )
        unread += len(rejected)
        names = store.names
        for p in positions:
            videos[side, p] = Pictured(
                picture=pictures.get(rows[p]),
                label=class_name(int(store.label[p]), store.classes),
                name=names[p],
            )
    lookups = {
        i: Lookup(
            query=videos["test", i],
            neighbours=[
                _similar(videos["train", p], result.similarity[i, rank])
                for rank, p in enumerate(nearest[i])
            ],
            first_hit=int(result.first_hit[i]),
        )
        for i in chosen
    }
    return lookups, unread


def _similar(video: Pictured, similarity: Tensor) -> Pictured:
    return Pictured(video.picture, video.label, video.name, float(similarity))
