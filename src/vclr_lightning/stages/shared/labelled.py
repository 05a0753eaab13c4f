"""The labelled videos of a split that a measure of frozen features uses, and those left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.jobs.rejects import Rejected, read_rejects, reasons_of, rejects_file
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.results import Table

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.store import FeatureStore

_NAMED = 5  # classes in a sentence


@dataclass(frozen=True)
class LabelledSplit:
    """Features of the labelled videos of a split, and what could not be used.

    Attributes:
        what: ``"training"`` or ``"test"``, for a reader.
        store: of the labelled videos.
        whole: of all videos that could be read.
        unindexed: videos that are not in the manifest because they are missing or damaged.
    """

    what: str
    store: FeatureStore
    whole: FeatureStore
    unindexed: Sequence[Rejected] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """Number of videos that are not used."""
        lost = len(self.unindexed) + len(self.whole.rejected)
        return lost + len(self.whole) - len(self.store)

    @property
    def rejected(self) -> list[Mapping[str, Any]]:
        """What could not be indexed or read, for :func:`rejected_table`."""
        lost = ({"video_id": "", "path": r.path, "reason": r.reason} for r in self.unindexed)
        return [*lost, *self.whole.rejected]

    def notes(self) -> list[str]:
        """Say what is left out, a sentence for each reason."""
        found = []
        if self.unindexed:
            there = len(self.whole) + len(self.whole.rejected)
            found.append(unindexed_note(self.unindexed, there, self.what))
        if self.whole.rejected:
            found.append(
                f"{count(len(self.whole.rejected), self.what)} cannot be read; left out, and "
                "listed in rejected.csv."
            )
        if unlabelled := len(self.whole) - len(self.store):
            found.append(f"{count(unlabelled, self.what)} without a label; left out.")
        return found


def labelled(what: str, whole: FeatureStore, data: VideoDataModule, split: str) -> LabelledSplit:
    """Return the labelled videos of a split, and what is left out.

    Args:
        what: ``"training"`` or ``"test"``.
        whole: features of the split.
        data: where the videos are.
        split: its name.

    Raises:
        UserError: no video has a label.
    """
    return LabelledSplit(what, whole.labelled(), whole, unindexed(data, split))


def counts(train: LabelledSplit, test: LabelledSplit) -> dict[str, float]:
    """Return how many videos and groups are used, and left out, as ``train/videos`` and so on."""
    return {
        "train/videos": len(train.store),
        "test/videos": len(test.store),
        "train/groups": len(set(train.store.group_id.tolist())),
        "test/groups": len(set(test.store.group_id.tolist())),
        "train/left_out": train.left_out,
        "test/left_out": test.left_out,
    }


def count(number: int, what: str) -> str:
    """Return a number of videos in words.

    Example:
        >>> count(1, "test"), count(3783, "training")
        ('1 test video', '3,783 training videos')
    """
    return f"{number:,} {what} video{'' if number == 1 else 's'}"


def unindexed(data: VideoDataModule, split: str) -> list[Rejected]:
    """Return the videos of a split that its manifest lists as missing or damaged."""
    table = data.splits.get(split)
    if not isinstance(table, Manifest):
        return []
    listed = read_rejects(rejects_file(table.file))
    return [one for one in listed if one.lost and one.split == split]


def unindexed_note(
    lost: Sequence[Rejected], there: int, what: str, file: str = "rejected.csv"
) -> str:
    """Say how many of a split's videos are not in its manifest, and why.

    Args:
        lost: these videos.
        there: number of videos in the manifest.
        what: ``"training"`` or ``"test"``, for a reader.
        file: that lists them.
    """
    return (
        f"{len(lost):,} of {count(there + len(lost), what)} could not be indexed "
        f"({reasons_of(lost)}); left out, and listed in {file}."
    )


def rejected_table(
    rejected: Mapping[str, Sequence[Mapping[str, Any]]], *, file: str = "rejected"
) -> Table:
    """Return the videos of each split that could not be indexed or read, as a CSV file."""
    rows = [
        (split, one["video_id"], one["path"], one["reason"])
        for split, some in rejected.items()
        for one in some
    ]
    return Table(
        columns=("split", "video_id", "path", "reason"), rows=rows, file=file, shown="file"
    )


def missing_classes_note(
    missing: Sequence[int], labels: Tensor, classes: Sequence[str], *, count_as: str
) -> list[str]:
    """Name the classes of test videos that no training video has, if there are any.

    Args:
        missing: these classes.
        labels: of the test videos.
        classes: names.
        count_as: what their videos count as.
    """
    if not missing:
        return []
    names = [class_name(label, classes) for label in missing]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    lost = int(torch.isin(labels, torch.tensor(missing)).sum())
    return [
        f"{count(lost, 'test')} of classes without any training video; counted as {count_as}: "
        f"{', '.join(names[:_NAMED])}{more}."
    ]


def shared_groups_note(train: Tensor, test: Tensor, *, easy: str) -> list[str]:
    """Say how many test videos are of a training video's group, if any; this makes them easy.

    Args:
        train: groups of the training videos, ``(N,)``.
        test: groups of the test videos, ``(M,)``.
        easy: to do what, for a reader.
    """
    shared = int(torch.isin(test, train).sum())
    if not shared:
        return []
    return [
        f"{count(shared, 'test')} of the same group (source) as a training video, which is {easy}."
    ]


def labels_of(data: VideoDataModule, split: str, *, needed_by: str) -> Tensor:
    """Return the labels of a split's videos, before anything is extracted from these.

    Args:
        data: where the videos are.
        split: its name.
        needed_by: what needs them, for a reader.

    Shape:
        returns ``(N,)`` int64, -1 for none

    Raises:
        UserError: there is no such split, or none of its videos has a label.
    """
    table = data.split(split)
    if isinstance(table, Manifest):  # all at once
        labels = torch.from_numpy(table.labels)
    else:
        labels = torch.tensor([table.label(i) for i in range(len(table))], dtype=torch.int64)
    if not bool((labels >= 0).any()):
        raise UserError(
            f"none of the {len(table):,} videos of split {split} has a label, and {needed_by} "
            "needs them; index a folder with a subfolder per class, or list files with labels"
        )
    return labels
