"""The page of a demo: what its run left, and pictures of what the network saw and finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.evaluation import FeatureSet, FrozenTable
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.report import Content, Query, Shown, TupleSample, write_report
from vclr_lightning.report.images import middle_frames
from vclr_lightning.report.runs import content_of, read_run

SAMPLES = 4
QUERIES = 8
NEIGHBOURS = 5
FRAMES = 3
ORDER_MARGIN = 0.05  # above chance, from which on the order counts as learned


def write_demo_page(
    path: str | Path,
    data: VideoDataModule,
    *,
    directory: str | Path,
    train: Mapping[str, FeatureSet],
    test: Mapping[str, FeatureSet],
    views: frozenset[str],
) -> Path:
    """Write the page of a run that has left its results in ``directory``.

    Args:
        path: the page.
        data: the videos of the run.
        directory: its folder.
        train: features of the training videos, by name.
        test: features of the held-out videos, under the same names.
        views: what the objectives read.

    Raises:
        UserError: a file of the run is damaged, or the page cannot be written.
    """
    content, frozen = content_of([read_run(directory)])
    assert frozen is not None
    content = replace(
        content,
        title=f"What a network learned from {frozen.train_videos} videos without labels",
        summary=summary(frozen),
        notes=remarks(content),
        tuples=sample_tuples(data, views),
        queries=sample_queries(data, train, test),
    )
    return write_report(path, content, frozen=frozen)


def summary(frozen: FrozenTable) -> str:
    """Say in a sentence what the first row of a table reaches, beside the others.

    Example:
        >>> from vclr_lightning.evaluation import FrozenRow
        >>> values = {"VCLR": 0.5, "chance": 0.125}
        >>> rows = tuple(FrozenRow(name, {"probe_ordered": (v,)}) for name, v in values.items())
        >>> summary(FrozenTable(rows, 80, 20, 3))
        'A linear probe predicts the action of 20 unseen videos: 50% correct from the features of \
VCLR, 12.5% at chance level.'
    """
    shares = {row.name: 100 * _mean(row.values["probe_ordered"]) for row in frozen.rows}
    first = next(iter(shares))
    parts = [f"{shares[first]:.3g}% correct from the features of {first}"]
    if "untrained" in shares:
        parts.append(f"{shares['untrained']:.3g}% from those of the same network untrained")
    parts.append(f"{shares['chance']:.3g}% at chance level")
    return (
        f"A linear probe predicts the action of {frozen.test_videos} unseen videos: "
        + ", ".join(parts)
        + "."
    )


def remarks(content: Content) -> list[str]:
    """Explain, a sentence each, what in a run's numbers and curves looks worse than it is.

    Args:
        content: the page without them.
    """
    found = []
    order = next((score for score in content.scores if "shuffled" in score.name), None)
    if order is not None and order.share < order.chance + ORDER_MARGIN:
        found.append("The order loss has not learned its task in the steps of this run.")
    if any("loss" in chart.title.lower() for chart in content.charts):
        found.append(
            "A contrastive loss may rise while the features improve: as the learning rate falls, "
            "the queue's older keys come from an encoder ever more like the present one, and are "
            "no longer distinguished from the positive by their age."
        )
    return found


def sample_tuples(data: VideoDataModule, views: frozenset[str]) -> list[TupleSample]:
    """Return what the network saw of a few training videos in its first epoch."""
    if not {"anchor", "positive"} <= views:
        return []
    videos = len(data.train)
    rows = [i * videos // SAMPLES for i in range(min(SAMPLES, videos))]
    samples = []
    for batch in data.pair_loader(
        "train", sorted(views & {"anchor", "positive", "second"}), rows=rows
    ):
        for i, row in enumerate(batch["index"].tolist()):
            seen = {name: middle_frames(view[i]) for name, view in batch["views"].items()}
            second = seen.get("second")
            samples.append(
                TupleSample(
                    name=data.train.path(row).stem,
                    anchor=seen["anchor"],
                    positive=seen["positive"],
                    second=None if second is None else second[0],
                    x1=None if second is None else int(batch["rows"]["x1"][i, 0]),
                    anchor_order=batch["order"]["anchor"][i].tolist(),
                    positive_order=batch["order"]["positive"][i].tolist(),
                )
            )
    return samples


def sample_queries(
    data: VideoDataModule, train: Mapping[str, FeatureSet], test: Mapping[str, FeatureSet]
) -> list[Query]:
    """Return the first held-out video of each class, and its nearest training videos."""
    unseen = next(iter(test.values())).labelled()
    first: dict[int, int] = {}
    for position, label in enumerate(unseen.label.tolist()):
        first.setdefault(label, position)
    chosen = torch.tensor([first[label] for label in sorted(first)][:QUERIES])
    nearest: dict[str, Tensor] = {}
    for name, features in train.items():
        known, queries = features.labelled(), test[name].labelled()
        _, found = cosine_neighbours(queries.concatenated[chosen], known.concatenated, NEIGHBOURS)
        nearest[name] = known.index[found]  # (Q, k) rows of the manifest
    rows = unseen.index[chosen].tolist()
    wanted = sorted({row for found in nearest.values() for row in found.flatten().tolist()})
    videos, gallery = _shown(data, "val", rows), _shown(data, "train", wanted)
    return [
        Query(
            video=videos[row],
            neighbours={
                name: [gallery[k] for k in found[i].tolist()] for name, found in nearest.items()
            },
        )
        for i, row in enumerate(rows)
    ]


def _shown(data: VideoDataModule, split: str, rows: Sequence[int]) -> dict[int, Shown]:
    """Return a few frames of some videos, evenly spread, by row of the manifest."""
    classes = getattr(data.manifest(split), "classes", ())
    shown: dict[int, Shown] = {}
    for batch in data.frames_loader(split, rows=rows):
        for i, row in enumerate(batch["index"].tolist()):
            frames = middle_frames(batch["frames"][i][batch["mask"][i]])  # (m, C, H, W)
            some = torch.linspace(0, len(frames) - 1, FRAMES).round().long()
            label = int(batch["label"][i])
            name = classes[label] if label < len(classes) else f"class {label}"
            shown[row] = Shown(frames[some], name)
    return shown


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
