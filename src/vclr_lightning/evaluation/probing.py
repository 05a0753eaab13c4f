"""What all probes have in common: rows, searches by cross-validation, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.measures import standardized
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.functional.folds import group_folds


@dataclass(frozen=True)
class Rows:
    """Training videos as a probe takes them.

    Attributes:
        features: ``(N, F)``.
        targets: ``(N,)``, columns of the scores.
        groups: ``(N,)``; those of one group stay on one side of every fold.
        classes: number of columns.
    """

    features: Tensor
    targets: Tensor
    groups: Tensor
    classes: int

    def select(self, keep: Tensor) -> Rows:
        """Return the rows where ``keep`` ``(N,)`` is true."""
        return Rows(self.features[keep], self.targets[keep], self.groups[keep], self.classes)


@dataclass(frozen=True)
class Tried:
    """One setting of a search, and its top-1 accuracy on each held-out fold."""

    value: float
    folds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the folds."""
        return sum(self.folds) / len(self.folds)


@dataclass(frozen=True)
class Search:
    """Settings compared by cross-validation on training videos.

    Attributes:
        name: of the setting, such as ``"C"``.
        tried: in the order given.
        held_out: number of videos in each fold.
    """

    name: str
    tried: tuple[Tried, ...]
    held_out: tuple[int, ...]

    @property
    def best(self) -> Tried:
        """The best on average; of equally good ones the first."""
        return max(self.tried, key=lambda one: one.mean)


@dataclass(frozen=True)
class Scored:
    """What a probe says of test videos.

    Attributes:
        scores: ``(M, classes)``.
        settings: in words.
        search: how they were chosen, if they were.
    """

    scores: Tensor
    settings: str
    search: Search | None = None


class Probe(ABC):
    """Fits a classifier to frozen features, and scores others."""

    def check(self, targets: Tensor, groups: Tensor) -> None:
        """Tell what is wrong before there are features.

        Args:
            targets: classes of the training videos.
            groups: of the training videos.

        Shape:
            both ``(N,)``

        Raises:
            UserError: a setting cannot be had here, or not with these videos.
        """
        check_device(getattr(self, "device", None))

    @abstractmethod
    def score(self, train: Rows, test: Tensor, *, show: bool = True) -> Scored:
        """Fit to ``train`` and score ``test`` ``(M, F)``, whose labels it never sees.

        Raises:
            UserError: a setting is impossible, or nothing can be fitted.
        """


Accuracies = Callable[[Rows, Rows, Sequence[float]], Sequence[float]]
"""Fits to the first rows with each value; returns the top-1 accuracies on the second."""


def cross_validate(
    name: str,
    values: Sequence[float],
    accuracies: Accuracies,
    train: Rows,
    *,
    folds: int,
    seed: int = 0,
    show: bool = True,
) -> Search:
    """Measure settings on folds of the training videos that keep groups whole.

    Args:
        name: of the setting.
        values: to try.
        accuracies: of all values on one fold.
        train: videos to deal to the folds.
        folds: how many.
        seed: of the folds.
        show: show a progress bar.

    Raises:
        UserError: there are fewer groups than folds.
    """
    fold = group_folds(train.targets, train.groups, folds=folds, seed=seed)
    found = [
        accuracies(train.select(fold != i), train.select(fold == i), values)
        for i in track(range(folds), f"choosing {name}", show=show)
    ]
    return Search(
        name=name,
        tried=tuple(Tried(value, tuple(one[j] for one in found)) for j, value in enumerate(values)),
        held_out=tuple(int((fold == i).sum()) for i in range(folds)),
    )


def prepared(
    train: Rows, test: Tensor, standardize: bool, device: str | None
) -> tuple[Rows, Tensor]:
    """Return training rows and test features in float32, standardized and moved if asked for.

    Raises:
        UserError: the device cannot be used.
    """
    known, unseen = train.features.float(), test.float()
    if standardize:
        known, unseen = standardized(known, unseen)
    if device is None:
        return Rows(known, train.targets, train.groups, train.classes), unseen
    check_device(device)
    known, unseen, targets = (x.to(device) for x in (known, unseen, train.targets))
    return Rows(known, targets, train.groups, train.classes), unseen


def check_device(device: str | None) -> None:
    """Refuse a device that there is not.

    Raises:
        UserError: see above.
    """
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device} of the probe cannot be used here") from error


def check_folds(folds: int, seed: int) -> None:
    """Refuse settings of a search that are out of range.

    Raises:
        UserError: see above.
    """
    check_count("folds", folds, least=2)
    check_count("seed", seed, least=0)
