"""What of a data set's videos a measure of frozen features leaves out, and what makes it easy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.jobs.rejects import Rejected, read_rejects, reasons_of, rejects_file
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.evaluation.neighbour_tables import class_name

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.evaluation.store import FeatureStore

_SHOWN = 5  # classes named in a sentence


@dataclass(frozen=True)
class Used:
    """The videos of a split that a measure uses, and those that it cannot.

    Attributes:
        what: ``"training"`` or ``"test"``, for a reader.
        store: of the videos that are used.
        whole: of all whose features there are.
        unindexed: videos of the split that did not get into the manifest: named by the data set's
            files and not there, or not to be opened.
    """

    what: str
    store: FeatureStore
    whole: FeatureStore
    unindexed: Sequence[Rejected] = field(default_factory=list)

    @property
    def unlabelled(self) -> int:
        """Videos without a label."""
        return len(self.whole) - len(self.store)

    @property
    def left_out(self) -> int:
        """How many videos of the split are not used."""
        return len(self.unindexed) + len(self.whole.rejected) + self.unlabelled

    @property
    def listed(self) -> list[Mapping[str, Any]]:
        """What cannot be read, for :func:`.write_rejected`."""
        lost = ({"video_id": "", "path": r.path, "reason": r.reason} for r in self.unindexed)
        return [*lost, *self.whole.rejected]

    def remarks(self) -> list[str]:
        """Say what is left out, a sentence for each reason."""
        found = []
        if self.unindexed:
            there = len(self.whole) + len(self.whole.rejected)
            found.append(unindexed_words(self.unindexed, there, self.what))
        if self.whole.rejected:
            found.append(
                f"{count(len(self.whole.rejected), self.what)} cannot be read; left out, and "
                "listed in rejected.csv."
            )
        if self.unlabelled:
            found.append(f"{count(self.unlabelled, self.what)} without a label; left out.")
        return found


def count(number: int, what: str) -> str:
    """Return a number of videos in words.

    Example:
        >>> count(1, "test"), count(3783, "training")
        ('1 test video', '3,783 training videos')
    """
    return f"{number:,} {what} video{'' if number == 1 else 's'}"


def used(what: str, whole: FeatureStore, data: VideoDataModule, split: str) -> Used:
    """Return the labelled videos of a split, and what is left out.

    Args:
        what: ``"training"`` or ``"test"``.
        whole: features of the split.
        data: where the videos are.
        split: its name.

    Raises:
        UserError: no video has a label.
    """
    return Used(what, whole.labelled(), whole, unindexed(data, split))


def unindexed(data: VideoDataModule, split: str) -> list[Rejected]:
    """Return the videos of a split that did not get into its manifest, as far as it lists them."""
    table = data.splits.get(split)
    if not isinstance(table, Manifest):
        return []
    listed = read_rejects(rejects_file(table.file))
    return [one for one in listed if one.lost and one.split == split]


def unindexed_words(
    lost: Sequence[Rejected], there: int, what: str, file: str = "rejected.csv"
) -> str:
    """Say how many of a split's videos did not get into its manifest, and why.

    Args:
        lost: these videos.
        there: how many did.
        what: ``"training"`` or ``"test"``, for a reader.
        file: that lists them.
    """
    return (
        f"{len(lost):,} of {count(there + len(lost), what)} could not be indexed "
        f"({reasons_of(lost)}); left out, and listed in {file}."
    )


def missing_classes(
    missing: Sequence[int], labels: Tensor, classes: Sequence[str], *, count_as: str
) -> list[str]:
    """Say which classes of test videos no training video has, if there are any.

    Args:
        missing: these classes.
        labels: of the test videos.
        classes: names.
        count_as: what their videos count as.
    """
    if not missing:
        return []
    names = [class_name(label, classes) for label in missing]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    lost = int(torch.isin(labels, torch.tensor(missing)).sum())
    return [
        f"{count(lost, 'test')} of classes without any training video; counted as {count_as}: "
        f"{', '.join(names[:_SHOWN])}{more}."
    ]


def shared_groups(train: FeatureStore, test: FeatureStore, *, easy: str) -> list[str]:
    """Say how many test videos are of a training video's group, if there are any.

    Args:
        train, test: the videos.
        easy: what that makes them.
    """
    shared = int(torch.isin(test.group_id, train.group_id).sum())
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
