"""Pictures of what the network saw in training, and of what its features find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.results import Gallery, Picture, PictureGroup

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation import FeatureSet

_VIDEOS = 4  # of training
_QUERIES = 8
_NEIGHBOURS = 5
_FRAMES = 3  # of a query or neighbour
_SHUFFLED = ("neither is shuffled", "anchor shuffled", "positive shuffled", "both shuffled")


def tuple_pictures(data: VideoDataModule, views: frozenset[str]) -> list[Gallery]:
    """Return what the network saw of a few training videos in its first epoch.

    Args:
        data: the videos of the run.
        views: what the objectives read.
    """
    if not {"anchor", "positive"} <= views:
        return []
    videos = len(data.train)
    rows = [i * videos // _VIDEOS for i in range(min(_VIDEOS, videos))]
    groups = []
    names = sorted(views & {"anchor", "positive", "second"})
    for batch in data.seen_loader(rows, names):
        if not {"anchor_order", "positive_order"} <= batch["targets"].keys():
            return []
        for i, row in enumerate(batch["index"].tolist()):
            seen = {name: middle_frames(view[i]) for name, view in batch["views"].items()}
            orders = {
                name: batch["targets"][f"{name}_order"][i].tolist()
                for name in ("anchor", "positive")
            }
            x1 = int(batch["rows"]["x1"][i, 0]) if "second" in seen else -1
            shown: list[tuple[str | Picture, list[Picture]]] = [
                (name, _tuple(seen[name], order, x1 if name == "anchor" else -1))
                for name, order in orders.items()
            ]
            if "second" in seen:
                shown.append(("x1, again", [Picture(frames=seen["second"][0])]))
            anchor, positive = (order != sorted(order) for order in orders.values())
            title = data.train.path(row).stem
            groups.append(
                PictureGroup(rows=shown, title=title, text=_SHUFFLED[anchor + 2 * positive])
            )
    text = (
        "Two tuples of each video, drawn and augmented independently, one picture from each "
        "segment. The framed picture x1 is seen once more, in a second augmentation. The order "
        "loss is shown the tuples as numbered, and must predict which of them are shuffled."
    )
    title = "What the network saw"
    return [Gallery(title=title, text=text, groups=groups, layout="cards")]


def _tuple(frames: Tensor, order: Sequence[int], x1: int) -> list[Picture]:
    """Return the frames of a tuple, numbered in the order in which the order loss sees them."""
    return [
        Picture(
            frames=frame,
            badge=str(order.index(place) + 1) if place in order else "",
            outlined=place == x1,
        )
        for place, frame in enumerate(frames)
    ]


def query_pictures(
    data: VideoDataModule, train: Mapping[str, FeatureSet], test: Mapping[str, FeatureSet]
) -> Gallery:
    """Return the first held-out video of each class, and its nearest training videos.

    Args:
        data: the videos of the run.
        train: features of the training videos, by name.
        test: features of the held-out videos, under the same names.
    """
    unseen = next(iter(test.values())).labelled()
    first: dict[int, int] = {}
    for position, label in enumerate(unseen.label.tolist()):
        first.setdefault(label, position)
    chosen = torch.tensor([first[label] for label in sorted(first)][:_QUERIES])
    nearest: dict[str, Tensor] = {}
    for name, features in train.items():
        known, queries = features.labelled(), test[name].labelled()
        _, found = cosine_neighbours(queries.concatenated[chosen], known.concatenated, _NEIGHBOURS)
        nearest[name] = known.index[found]  # (Q, k) rows of the manifest
    rows = unseen.index[chosen].tolist()
    wanted = sorted({row for found in nearest.values() for row in found.flatten().tolist()})
    videos, gallery = _strips(data, "val", rows), _strips(data, "train", wanted)
    groups = []
    for i, row in enumerate(rows):
        frames, label = videos[row]
        shown: list[tuple[str | Picture, list[Picture]]] = [(label, [Picture(frames=frames)])]
        for name, found in nearest.items():
            strips = [gallery[k] for k in found[i].tolist()]
            shown.append(
                (name, [Picture(frames=f, caption=c, correct=c == label) for f, c in strips])
            )
        groups.append(PictureGroup(rows=shown))
    text = (
        "Unseen videos, and the training videos whose frozen features, in order, are nearest. "
        "Labels serve here to judge the result; training never saw them."
    )
    return Gallery(title="What the features find", text=text, groups=groups, layout="strips")


def _strips(
    data: VideoDataModule, split: str, rows: Sequence[int]
) -> dict[int, tuple[Tensor, str]]:
    """Return a few frames of some videos, evenly spread, and their class, by row."""
    classes = getattr(data.manifest(split), "classes", ())
    found = {}
    for batch in data.frames_loader(split, rows=rows):
        for i, row in enumerate(batch["index"].tolist()):
            frames = middle_frames(batch["frames"][i][batch["mask"][i]])  # (m, C, H, W)
            some = torch.linspace(0, len(frames) - 1, _FRAMES).round().long()
            found[row] = frames[some], class_name(int(batch["label"][i]), classes)
    return found


def middle_frames(clips: Tensor) -> Tensor:
    """Return the frame in the middle of each clip.

    Shape:
        ``(..., C, T, H, W)`` to ``(..., C, H, W)``
    """
    return clips.select(-3, clips.shape[-3] // 2)
