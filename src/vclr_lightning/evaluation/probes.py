"""Classifiers on frozen features: what a probe is fitted with, and how its settings are chosen."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.measures import standardized
from vclr_lightning.evaluation.progress import track
from vclr_lightning.evaluation.settings import check_count, check_number, check_numbers
from vclr_lightning.functional.accuracy import topk_accuracy
from vclr_lightning.functional.folds import group_folds
from vclr_lightning.functional.logistic import fit_logistic
from vclr_lightning.functional.svm import SVMFit, fit_linear_svm
from vclr_lightning.functional.weighted_knn import knn_scores

logger = logging.getLogger(__name__)


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
        _check_device(getattr(self, "device", None))

    @abstractmethod
    def score(self, train: Rows, test: Tensor, *, show: bool = True) -> Scored:
        """Fit to ``train`` and score ``test`` ``(M, F)``, whose labels it never sees.

        Raises:
            UserError: a setting is impossible, or nothing can be fitted.
        """


@dataclass(frozen=True, kw_only=True)
class SVMProbe(Probe):
    """The paper's linear evaluation: LIBLINEAR's ``-s 2 -c C`` without a bias (Section 4.1).

    Attributes:
        cost: C.
        costs: values of C to choose among by cross-validation instead; the smallest of equally
            good ones.
        folds: of the cross-validation.
        standardize: bring each feature to mean 0 and variance 1 over the training videos.
        seed: of the folds.
        device: where to fit.

    Raises:
        UserError: a number is out of its range.

    Example:
        >>> rows = Rows(torch.eye(4), torch.tensor([0, 1, 0, 1]), torch.arange(4), 2)
        >>> SVMProbe(cost=10.0).score(rows, torch.eye(4)).scores.argmax(dim=1).tolist()
        [0, 1, 0, 1]
    """

    cost: float = 1.0
    costs: Sequence[float] | None = None
    folds: int = 5
    standardize: bool = False
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        check_number("cost", self.cost, above=0)
        if self.costs is not None:
            check_numbers("costs", self.costs, above=0)
        _check_folds(self.folds, self.seed)

    def check(self, targets: Tensor, groups: Tensor) -> None:
        super().check(targets, groups)
        if self.costs:
            group_folds(targets, groups, folds=self.folds, seed=self.seed)

    def score(self, train: Rows, test: Tensor, *, show: bool = True) -> Scored:
        costs = sorted({float(cost) for cost in self.costs or (self.cost,)})
        search = None
        if self.costs:
            search = cross_validate(
                "C", costs, self._accuracies, train, folds=self.folds, seed=self.seed, show=show
            )
        cost = costs[0] if search is None else search.best.value
        rows, unseen = _prepared(train, test, self.standardize, self.device)
        fit = fit_svm(rows, cost)
        scores = (unseen @ fit.weight.to(unseen).T).cpu()
        return Scored(scores, f"SVM, C = {cost:g}", search)

    def _accuracies(self, train: Rows, test: Rows, costs: Sequence[float]) -> list[float]:
        rows, unseen = _prepared(train, test.features, self.standardize, self.device)
        found, fit = [], None
        for cost in costs:
            fit = fit_svm(rows, cost, start=None if fit is None else fit.weight)
            scores = (unseen @ fit.weight.to(unseen).T).cpu()
            found.append(topk_accuracy(scores, test.targets))
        return found


@dataclass(frozen=True, kw_only=True)
class LogisticProbe(Probe):
    """Logistic regression by SGD, all learning rates in one pass; the best on held-out folds.

    Attributes:
        learning_rates: to choose among.
        epochs: passes over the features.
        batch_size: videos per step.
        momentum: of SGD.
        weight_decay: of SGD.
        folds: of the cross-validation.
        standardize: bring each feature to mean 0 and variance 1 over the training videos.
        seed: of the folds and of the order of the videos.
        device: where to fit.

    Raises:
        UserError: a number is out of its range.
    """

    learning_rates: Sequence[float] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    epochs: int = 50
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 0.0
    folds: int = 5
    standardize: bool = True
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        check_numbers("learning_rates", self.learning_rates, above=0)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_number("momentum", self.momentum, least=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        _check_folds(self.folds, self.seed)

    def check(self, targets: Tensor, groups: Tensor) -> None:
        super().check(targets, groups)
        if len(set(self.learning_rates)) > 1:
            group_folds(targets, groups, folds=self.folds, seed=self.seed)

    def score(self, train: Rows, test: Tensor, *, show: bool = True) -> Scored:
        rates = sorted({float(rate) for rate in self.learning_rates})
        search = None
        if len(rates) > 1:
            search = cross_validate(
                "learning rate",
                rates,
                self._accuracies,
                train,
                folds=self.folds,
                seed=self.seed,
                show=show,
            )
        rate = rates[0] if search is None else search.best.value
        scores = self._fit(train, test, [rate], show=show)[0]
        return Scored(scores, f"logistic, learning rate {rate:g}", search)

    def _fit(
        self, train: Rows, test: Tensor, rates: Sequence[float], *, show: bool = False
    ) -> Tensor:
        rows, unseen = _prepared(train, test, self.standardize, self.device)
        heads = fit_logistic(
            rows.features,
            rows.targets,
            num_classes=rows.classes,
            learning_rates=rates,
            epochs=self.epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            seed=self.seed,
            progress=lambda epochs: track(epochs, "logistic probe", show=show),
        )
        scores = heads.scores(unseen).cpu()  # (L, M, classes)
        if not bool(scores.isfinite().flatten(1).all(dim=1).any()):
            raise UserError(
                f"the logistic probe diverges at every learning rate of {list(rates)}; give smaller"
                " ones"
            )
        return scores

    def _accuracies(self, train: Rows, test: Rows, rates: Sequence[float]) -> list[float]:
        # One that diverged is right nowhere.
        return [
            topk_accuracy(scores, test.targets) if bool(scores.isfinite().all()) else 0.0
            for scores in self._fit(train, test.features, rates)
        ]


@dataclass(frozen=True, kw_only=True)
class KNNProbe(Probe):
    """The nearest training videos vote, each with weight exp(cosine similarity / T).

    Attributes:
        k: neighbours that vote.
        temperature: T.
        device: where to compute.

    Raises:
        UserError: a number is out of its range.
    """

    k: int = 20
    temperature: float = 0.07
    device: str | None = None

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_number("temperature", self.temperature, above=0)

    def score(self, train: Rows, test: Tensor, *, show: bool = True) -> Scored:
        rows, unseen = _prepared(train, test, False, self.device)
        scores = knn_scores(
            unseen,
            rows.features,
            rows.targets,
            num_classes=rows.classes,
            k=self.k,
            temperature=self.temperature,
        )
        k = min(self.k, len(rows.features))
        scores = scores.masked_fill(scores == 0, -torch.inf)  # no vote
        return Scored(scores.cpu(), f"{k} nearest, T = {self.temperature:g}")


PROBES: dict[str, type[Probe]] = {"svm": SVMProbe, "logistic": LogisticProbe, "knn": KNNProbe}
"""Probes by name."""


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


def fit_svm(rows: Rows, cost: float, *, start: Tensor | None = None) -> SVMFit:
    """Fit in single precision, and in double where that cannot prove the result."""
    fit = partial(
        fit_linear_svm, targets=rows.targets, num_classes=rows.classes, cost=cost, start=start
    )
    try:
        return fit(rows.features)
    except UserError:
        if rows.features.dtype == torch.float64 or not bool(rows.features.isfinite().all()):
            raise
        logger.info("single precision is not enough for C = %g; fitting in double", cost)
        return fit(rows.features.double())


def _prepared(
    train: Rows, test: Tensor, standardize: bool, device: str | None
) -> tuple[Rows, Tensor]:
    known, unseen = train.features.float(), test.float()
    if standardize:
        known, unseen = standardized(known, unseen)
    if device is None:
        return Rows(known, train.targets, train.groups, train.classes), unseen
    _check_device(device)
    known, unseen, targets = (x.to(device) for x in (known, unseen, train.targets))
    return Rows(known, targets, train.groups, train.classes), unseen


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device} of the probe cannot be used here") from error


def _check_folds(folds: int, seed: int) -> None:
    check_count("folds", folds, least=2)
    check_count("seed", seed, least=0)
