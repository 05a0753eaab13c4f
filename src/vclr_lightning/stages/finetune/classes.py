"""The classes of a classifier, and videos that it cannot learn from or be tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.views import long_enough
from vclr_lightning.evaluation.confusions import class_name

_SHOWN = 5


@dataclass(frozen=True)
class Classes:
    """The classes of a classifier.

    Attributes:
        names: of the classes, as far as they have any.
        count: of the classifier's outputs.
        untrained: classes of test videos that no training video has.
        notes: what is left out, or counts as wrong, a sentence each.
    """

    names: Sequence[str]
    count: int
    untrained: Sequence[int]
    notes: Sequence[str]


def classes_of(train: Any, test: Any | None, *, num_classes: int | None = None) -> Classes:
    """Compare the classes of training and test videos with the classifier's.

    Args:
        train, test: :class:`~vclr_lightning.data.manifest.Manifest` of the videos.
        num_classes: of the classifier; ``None`` for those of the videos.

    Raises:
        UserError: one of them has no labels, all training videos are of one class, or there are
            more classes than ``num_classes``.
    """
    names = tuple(train.classes)
    known, notes = np.unique(train.labels[train.labels >= 0]), []
    if not len(known):
        raise UserError(
            f"none of the {len(train)} training videos has a label, which finetuning needs; give "
            "folders named by class, or the data set's official files (data=ucf101 and so on)"
        )
    if len(known) < 2:
        raise UserError(
            f"all labelled training videos are of one class, {class_name(int(known[0]), names)}; "
            "a classifier needs two or more"
        )
    tested = np.unique(test.labels[test.labels >= 0]) if test is not None else known[:0]
    if test is not None and not len(tested):
        raise UserError(
            f"none of the {len(test)} test videos has a label; leave testing out (test=null), or "
            "give labels"
        )
    highest = int(max(known.max(), tested.max(initial=0)))
    there = max(len(names), highest + 1)
    count = there if num_classes is None else num_classes
    if highest >= count:
        raise UserError(
            f"num_classes={num_classes} is too few: the videos have labels of {there} classes; "
            "give num_classes=null to take as many as they have"
        )
    if count != there:
        notes.append(f"The classifier has {count} classes, the videos' labels have {there}.")
    if missing := int((train.labels < 0).sum()):
        notes.append(f"{missing} training videos have no label and are left out.")
    if test is not None and (missing := int((test.labels < 0).sum())):
        notes.append(f"{missing} test videos have no label and are left out.")
    untrained = [int(label) for label in tested if label not in known]
    if untrained:
        lost = int(np.isin(test.labels, untrained).sum()) if test is not None else 0
        shown = ", ".join(class_name(label, names) for label in untrained[:_SHOWN])
        more = f" and {len(untrained) - _SHOWN} more" if len(untrained) > _SHOWN else ""
        notes.append(
            f"{lost} test videos are of classes without any training video: {shown}{more}."
        )
    return Classes(names, count, untrained, notes)


def labelled_only(table: Any) -> Any:
    """Return the videos of a manifest that have a label."""
    labelled = table.labels >= 0
    return table if labelled.all() else table.select(labelled)


def long_only(table: Any, least: int) -> tuple[Any, str]:
    """Return the videos of at least so many frames, and a sentence about the others, if any."""
    if table is None or (long := long_enough(table, least)).all():
        return table, ""
    short = (
        f"{len(long) - long.sum()} of {len(long)} test videos have fewer than {least} frames and "
        "are left out, which makes the accuracy one of other videos (min_frames=1 keeps them)."
    )
    if not long.any():
        raise UserError(f"{short.removesuffix('.')}; there is nothing to test on")
    return table.select(long), short


def split_to_test(data: VideoDataModule, name: str | None) -> str:
    """Return the split to test on; refuse one without videos before anything is trained."""
    if name is not None:
        data.split(name)  # refuses an unknown name
        return name
    found = [split for split in ("val", "test") if data.splits.get(split)]
    if not found:
        raise UserError(
            "there are no videos of a split val or test to test on; hold some out "
            "(data.holdout=0.2), or leave testing out (test=null)"
        )
    return found[0]
