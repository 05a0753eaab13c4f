"""What frozen features are measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.accuracy import mean_class_accuracy, topk_accuracy
from vclr_lightning.functional.retrieval import chance_recall, recall_at_k
from vclr_lightning.functional.svm import fit_linear_svm

_ROWS = 8192  # in double precision at a time

if TYPE_CHECKING:
    from vclr_lightning.evaluation.features import FeatureSet


def retrieval(
    train: FeatureSet,
    test: FeatureSet,
    *,
    ordered: bool = False,
    ks: tuple[int, ...] = (1, 5, 10, 20, 50),
) -> dict[str, float]:
    """Recall at k of every test video among the training videos (Section 4.1 of the paper).

    Args:
        train: the gallery.
        test: the queries.
        ordered: compare the parts' features behind each other instead of their average.
        ks: numbers of neighbours; those beyond the gallery are left out.

    Returns:
        ``r1``, ``r5`` and so on.

    Raises:
        UserError: videos have no label.
    """
    train, test = train.labelled(), test.labelled()
    queries, gallery = (_matrix(features, ordered) for features in (test, train))
    recalls = recall_at_k(
        queries,
        gallery,
        query_labels=test.label,
        gallery_labels=train.label,
        ks=tuple(k for k in ks if k == min(ks) or k <= len(train)),
    )
    return {f"r{k}": value for k, value in recalls.items()}


def linear_probe(
    train: FeatureSet,
    test: FeatureSet,
    *,
    ordered: bool = False,
    cost: float = 1.0,
    standardize: bool = False,
) -> dict[str, float]:
    """Accuracy of a linear support vector machine on frozen features (Section 4.1 of the paper).

    Features are used as they are; the machine is LIBLINEAR's ``-s 2 -c cost`` without a bias. Its
    result depends on their scale, so to compare features of different kinds standardize them.

    Args:
        train: what it is fitted to.
        test: what it is measured on.
        ordered: use the parts' features behind each other instead of their average.
        cost: C.
        standardize: shift and scale each feature to mean 0 and variance 1 over the training
            videos.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_class``.

    Raises:
        UserError: videos have no label, there is one class only, or features are not finite.
    """
    train, test = train.labelled(), test.labelled()
    classes = torch.unique(train.label)
    if len(classes) < 2:
        raise UserError("all training videos are of one class; a linear probe needs two or more")
    known, unseen = _matrix(train, ordered), _matrix(test, ordered)
    if standardize:
        known, unseen = standardized(known, unseen)
    fit = fit_linear_svm(
        known,
        columns_of(train.label, classes),
        num_classes=len(classes),
        cost=cost,
    )
    scores = unseen @ fit.weight.T
    targets = columns_of(test.label, classes)
    accuracies = {"top1": topk_accuracy(scores, targets)}
    if len(classes) > 5:
        accuracies["top5"] = topk_accuracy(scores, targets, k=5)
    accuracies["mean_class"] = mean_class_accuracy(classes[scores.argmax(dim=1)], test.label)
    return accuracies


def standardized(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale each feature to mean 0 and variance 1 over ``train``; constant ones to 0.

    Computed in double precision, a part of the rows at a time; returned in the dtype of each.

    Shape:
        - train: ``(N, F)``; test: ``(M, F)``

    Example:
        >>> standardized(torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0]]))[1]
        tensor([[2.]])
    """
    parts = torch.split(train, _ROWS)
    mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / len(train)
    squares = [(part.double() - mean).square().sum(dim=0) for part in parts]
    spread = (torch.stack(squares).sum(dim=0) / len(train)).sqrt()
    # rounding leaves a constant feature a tiny spread, by which it must not be divided
    varies = spread > 1e-6 * mean.abs()
    scale = torch.where(varies, 1 / spread, 0.0)

    def scaled(x: Tensor) -> Tensor:
        found = torch.empty_like(x)
        for into, part in zip(torch.split(found, _ROWS), torch.split(x, _ROWS), strict=True):
            into.copy_((part.double() - mean) * scale)
        return found

    return scaled(train), scaled(test)


def chance(train: FeatureSet, test: FeatureSet) -> dict[str, float]:
    """What features without information reach: ``r1``, ``top1`` and ``mean_class``.

    Raises:
        UserError: videos have no label.
    """
    train, test = train.labelled(), test.labelled()
    share = 1 / len(torch.unique(train.label))
    r1 = chance_recall(test.label, train.label, ks=(1,))[1]
    return {"r1": r1, "top1": share, "mean_class": share}


def _matrix(features: FeatureSet, ordered: bool) -> Tensor:
    return (features.concatenated if ordered else features.mean).double()


def columns_of(labels: Tensor, columns: Tensor) -> Tensor:
    """Return the position of each label among the sorted ``columns``, -1 where it is not there.

    Example:
        >>> columns_of(torch.tensor([7, 3, 5]), torch.tensor([3, 7])).tolist()
        [1, 0, -1]
    """
    position = torch.searchsorted(columns, labels).clamp(max=len(columns) - 1)
    return torch.where(columns[position] == labels, position, -1)
