"""The interface of a probe, and the search of its settings by cross-validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.settings import check_count
from vclr_lightning.functional.embedding import standardized, whitened
from vclr_lightning.functional.folds import group_folds


@dataclass(frozen=True)
class ProbeData:
    """Training videos of a probe."""

    features: Tensor  # (N, F)
    targets: Tensor  # (N,), columns of the scores
    groups: Tensor  # (N,); no group is split between folds
    classes: int  # number of columns

    def select(self, keep: Tensor) -> ProbeData:
        """Return the rows where ``keep`` ``(N,)`` is true."""
        return ProbeData(self.features[keep], self.targets[keep], self.groups[keep], self.classes)


@dataclass(frozen=True)
class SearchPoint:
    """A value in a search, and its top-1 accuracy on each held-out fold."""

    value: float
    folds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the folds."""
        return sum(self.folds) / len(self.folds)


@dataclass(frozen=True)
class Search:
    """Values of a setting compared by cross-validation on training videos.

    Attributes:
        name: of the setting, such as ``"C"``.
        tried: in the order given.
        held_out: number of videos in each fold.
    """

    name: str
    tried: tuple[SearchPoint, ...]
    held_out: tuple[int, ...]

    @property
    def best(self) -> SearchPoint:
        """The first with the best mean accuracy."""
        return max(self.tried, key=lambda one: one.mean)


@dataclass(frozen=True)
class ProbeScores:
    """Class scores of test videos by a fitted probe."""

    scores: Tensor  # (M, classes)
    settings: str  # in words
    search: Search | None = None  # how they were chosen, if by cross-validation


class Probe(ABC):
    """Fits a classifier to frozen features, and scores others."""

    def check(self, targets: Tensor, groups: Tensor) -> None:
        """Check the settings against classes and groups of the training videos, both ``(N,)``.

        Raises:
            UserError: a setting is impossible on this machine or with these videos.
        """
        check_device(getattr(self, "device", None))

    @abstractmethod
    def score(self, train: ProbeData, test: Tensor, *, show: bool = True) -> ProbeScores:
        """Fit to ``train`` and score ``test`` ``(M, F)``.

        Raises:
            UserError: a setting is impossible, or nothing can be fitted.
        """


Accuracies = Callable[[ProbeData, ProbeData, Sequence[float]], Sequence[float]]
"""Fits to the first data with each value; returns the top-1 accuracies on the second."""


def cross_validate(
    name: str,
    values: Sequence[float],
    accuracies: Accuracies,
    train: ProbeData,
    *,
    folds: int,
    seed: int = 0,
    show: bool = True,
) -> Search:
    """Compare values of a setting on folds of the training videos that keep groups whole.

    Args:
        name: of the setting.
        values: to compare.
        accuracies: of all values on one fold.
        train: videos to assign to the folds.
        folds: number of folds.
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
        tried=tuple(
            SearchPoint(value, tuple(one[j] for one in found)) for j, value in enumerate(values)
        ),
        held_out=tuple(int((fold == i).sum()) for i in range(folds)),
    )


def prepared(
    train: ProbeData, test: Tensor, standardize: bool, device: str | None, *, whiten: bool = False
) -> tuple[ProbeData, Tensor]:
    """Return training data and test features in float32; standardized, whitened, moved on request.

    Raises:
        UserError: the device cannot be used.
    """
    known, unseen = train.features.float(), test.float()
    if standardize:
        known, unseen = standardized(known, unseen)
    if whiten:
        known, unseen = whitened(known, unseen)
    if device is None:
        return replace(train, features=known), unseen
    check_device(device)
    known, unseen, targets = (x.to(device) for x in (known, unseen, train.targets))
    return replace(train, features=known, targets=targets), unseen


def check_device(device: str | None) -> None:
    """Raise a :class:`UserError` for a device that is not available."""
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device} of the probe cannot be used here") from error


def check_folds(folds: int, seed: int) -> None:
    """Raise a :class:`UserError` for settings of a search that are out of range."""
    check_count("folds", folds, least=2)
    check_count("seed", seed, least=0)
