"""Class scores of test videos by a probe or a finetuned network: accuracies, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.cross_validation import Probe, ProbeData, Search
from vclr_lightning.functional.accuracy import columns_of, mean_class_accuracy, topk_hits

if TYPE_CHECKING:
    from vclr_lightning.evaluation.features import FeatureSet
    from vclr_lightning.evaluation.store import FeatureStore


@dataclass(frozen=True)
class ClassResult:
    """One class of the test videos.

    Attributes:
        label: of the class.
        videos: test videos of it.
        training: training videos of it.
        right: test videos classified correctly.
        predicted: most frequent wrong prediction; ``None`` where all are correct.
    """

    label: int
    videos: int
    training: int
    right: int
    predicted: int | None


@dataclass(frozen=True)
class ProbeResult:
    """Scores of M test videos.

    Attributes:
        scores: ``(M, c)``, for the classes that training videos have.
        columns: ``(c,)``, their labels.
        label: ``(M,)``, of the test videos.
        train_label: ``(N,)``, of the training videos.
        settings: of the probe, in words.
        search: how they were chosen, if they were.
    """

    scores: Tensor
    columns: Tensor
    label: Tensor
    train_label: Tensor
    settings: str
    search: Search | None = None

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def predicted(self) -> Tensor:
        """``(M,)``, the label of the highest score."""
        return self.columns[self.scores.argmax(dim=1)]

    @cached_property
    def hits(self) -> dict[str, Tensor]:
        """``(M,)`` bool: whether a video counts as right; ``top5`` with more than five classes."""
        targets = columns_of(self.label, self.columns)
        found = {"top1": topk_hits(self.scores, targets)}
        if len(self.columns) > 5:
            found["top5"] = topk_hits(self.scores, targets, k=5)
        return found

    @property
    def accuracies(self) -> dict[str, float]:
        """``top1``, ``top5`` where there are more than five classes, ``mean_class``."""
        found = {name: float(right.double().mean()) for name, right in self.hits.items()}
        return found | {"mean_class": mean_class_accuracy(self.predicted, self.label)}

    @property
    def chance(self) -> dict[str, float]:
        """The same of scores without information."""
        seen = torch.isin(self.label, self.columns)
        one = 1 / len(self.columns)
        share = float(seen.double().mean())
        classes = torch.unique(self.label)
        found = {"top1": share * one}
        if len(self.columns) > 5:
            found["top5"] = share * min(1.0, 5 * one)
        return found | {
            "mean_class": float(torch.isin(classes, self.columns).double().mean()) * one
        }

    @property
    def missing(self) -> list[int]:
        """Classes of test videos that no training video has."""
        classes = torch.unique(self.label)
        return [int(c) for c in classes[~torch.isin(classes, self.columns)]]

    def confusion(self, num_classes: int) -> Tensor:
        """Return the confusion matrix: videos by true (row) and predicted class (column).

        Args:
            num_classes: rows and columns, one for each label.

        Shape:
            returns ``(num_classes, num_classes)`` int64
        """
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.predicted, self.label, num_classes)

    def by_class(self) -> list[ClassResult]:
        """Return a row for each class of the test videos, by label."""
        rows = []
        for label in torch.unique(self.label).tolist():
            predicted = self.predicted[self.label == label]
            wrong = predicted[predicted != label]
            rows.append(
                ClassResult(
                    label=label,
                    videos=len(predicted),
                    training=int((self.train_label == label).sum()),
                    right=len(predicted) - len(wrong),
                    predicted=int(wrong.mode().values) if len(wrong) else None,
                )
            )
        return rows


def run_probe(
    probe: Probe,
    train: FeatureSet | FeatureStore,
    test: FeatureSet | FeatureStore,
    *,
    show: bool = True,
) -> ProbeResult:
    """Fit a probe to the labelled videos of ``train``, and apply it to those of ``test``.

    Args:
        probe: such as :class:`~vclr_lightning.evaluation.probes.SVMProbe`.
        train: what it is fitted to, and its settings chosen on.
        test: what it is measured on.
        show: show progress bars.

    Raises:
        UserError: no video has a label, all training videos are of one class, or features are not
            finite.
    """
    train, test = train.labelled(), test.labelled()
    columns = check_classes(train.label)
    for split, videos in (("training", train), ("test", test)):
        _check_finite(videos, split)
    rows = ProbeData(train.mean, columns_of(train.label, columns), train.group_id, len(columns))
    scored = probe.score(rows, test.mean, show=show)
    return ProbeResult(
        scores=scored.scores,
        columns=columns,
        label=test.label,
        train_label=train.label,
        settings=scored.settings,
        search=scored.search,
    )


def check_classes(labels: Tensor) -> Tensor:
    """Return the classes of labelled training videos, of which a probe needs more than one.

    Shape:
        ``(N,)`` to ``(c,)``, sorted

    Raises:
        UserError: there is one.

    Example:
        >>> check_classes(torch.tensor([7, 3, 7])).tolist()
        [3, 7]
    """
    classes: Tensor = torch.unique(labels)
    if len(classes) < 2:
        raise UserError(
            f"all {len(labels)} training videos are of one class; a probe needs two or more"
        )
    return classes


def _check_finite(videos: FeatureSet | FeatureStore, split: str) -> None:
    bad = [
        first + int(row)
        for first, part in zip(
            range(0, len(videos), 4096), torch.split(videos.mean, 4096), strict=True
        )
        for row in (~part.isfinite().all(dim=1)).nonzero()[:, 0]
    ]
    if bad:
        paths: Sequence[str] | None = getattr(videos, "paths", None)
        name = f"row {int(videos.index[bad[0]])}" if paths is None else paths[bad[0]]
        raise UserError(
            f"the features of {len(bad)} {split} videos are not finite, the first {name}; see "
            "whether the weights that made them are, and extract the features again"
        )
