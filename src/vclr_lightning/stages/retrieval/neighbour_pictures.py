"""Some queries and their nearest videos as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vclr_lightning.core.files import replacing
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.results import Gallery, Picture, PictureGroup
from vclr_lightning.results.pictures import picture_of
from vclr_lightning.stages.shared.loose_videos import middle_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.retrieval_result import Retrieval
    from vclr_lightning.evaluation.store import FeatureStore


def neighbour_pictures(
    result: Retrieval,
    *,
    train: FeatureStore,
    test: FeatureStore,
    data: VideoDataModule,
    queries: int = 24,
    neighbours: int = 5,
    seed: int = 0,
) -> tuple[Gallery, int]:
    """Return queries and their nearest videos, as the middle frame of each.

    Args:
        result: what was found.
        train: the gallery.
        test: the queries.
        data: where the videos are.
        queries: number of queries; half of them with a correct nearest video, if there are enough.
        neighbours: of each.
        seed: of the choice.

    Returns:
        The pictures, and the number of videos that cannot be read.
    """
    right, wrong = choose(result, queries, seed)
    # In turn, as in the paper's figure; what one has more comes last.
    chosen = [row for pair in zip_longest(right, wrong) for row in pair if row is not None]
    nearest = {i: [p for p in result.position[i, :neighbours].tolist() if p >= 0] for i in chosen}
    frames = {
        "test": _frames(test, chosen, data),
        "train": _frames(train, {p for found in nearest.values() for p in found}, data),
    }
    stores = {"test": test, "train": train}
    paths = {side: store.names for side, store in stores.items()}

    def picture(side: str, position: int, detail: str, correct: bool | None = None) -> Picture:
        label = class_name(int(stores[side].label[position]), stores[side].classes)
        tooltip = f"{label}: {paths[side][position]}"
        frame = frames[side][position]
        return Picture(frames=frame, caption=label, detail=detail, tooltip=tooltip, correct=correct)

    groups = []
    for i in chosen:
        first = int(result.first_hit[i])
        query = picture("test", i, f"own class: rank {first}" if first else "own class not found")
        found = [
            picture(
                "train",
                position,
                f"{float(result.similarity[i, rank]):.3f}",
                bool(train.label[position] == test.label[i]),
            )
            for rank, position in enumerate(nearest[i])
        ]
        groups.append(PictureGroup(rows=[(query, found)]))
    hits = int((result.first_hit == 1).sum())
    pictures = Gallery(
        groups=groups,
        title="Queries and their nearest training videos",
        text=f"{len(right)} of the {hits} queries whose nearest video is of their class, and "
        f"{len(wrong)} of the {len(result) - hits} others, drawn with seed {seed}. ✓ of the "
        "query's class, ✗ of another; below each its cosine similarity.",
    )
    return pictures, sum(frame is None for some in frames.values() for frame in some.values())


def save_pictures(shown: Gallery, file: Path, *, most: int = 12) -> None:
    """Write the first queries and their neighbours as one PNG, the query's class in its corner."""
    rows = [row for group in shown.groups for row in group.rows][:most]
    marked = [
        (replace(query, badge=query.caption) if isinstance(query, Picture) else query, found)
        for query, found in rows
    ]
    image = picture_of(PictureGroup(rows=marked))
    if image is not None:  # some can be read
        with replacing(file) as sink:
            Image.fromarray(image).save(sink, "PNG", optimize=True)


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
    labels = result.query_label.tolist()
    right, wrong = (_spread(np.flatnonzero(kind), labels, rng) for kind in (hit, ~hit))
    count = min(len(wrong), max(number // 2, number - len(right)))
    return right[: number - count], wrong[:count]


def _spread(rows: NDArray[np.int64], labels: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Shuffle rows so that every class comes once before any comes twice."""
    seen: Counter[int] = Counter()
    ranked = []
    for place, row in enumerate(rng.permutation(rows).tolist()):
        ranked.append((seen[labels[row]], place, row))
        seen[labels[row]] += 1
    return [row for _, _, row in sorted(ranked)]


def _frames(
    store: FeatureStore, positions: Iterable[int], data: VideoDataModule
) -> dict[int, Tensor | None]:
    """Return the middle frame of some videos of a store, by their positions in it."""
    rows = {position: int(store.index[position]) for position in positions}
    found = middle_frames(data.split(str(store.provenance["split"])), rows.values(), data.reader)
    return {position: found[row] for position, row in rows.items()}
