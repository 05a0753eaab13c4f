"""Probes: classifiers on frozen features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.batchnorm_probe import BatchNormProbe
from vclr_lightning.evaluation.cross_validation import (
    Probe,
    ProbeData,
    ProbeScores,
    check_folds,
    cross_validate,
    prepared,
)
from vclr_lightning.evaluation.settings import check_count, check_number, check_numbers
from vclr_lightning.functional.accuracy import topk_accuracy
from vclr_lightning.functional.folds import group_folds
from vclr_lightning.functional.knn import knn_scores
from vclr_lightning.functional.logistic import fit_logistic
from vclr_lightning.functional.svm import SVMFit, fit_linear_svm

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SVMProbe(Probe):
    """The paper's linear evaluation: LIBLINEAR's ``-s 2 -c C`` without a bias (Section 4.1).

    Attributes:
        cost: C.
        costs: values of C to choose from by cross-validation instead; the smallest of the best.
        folds: of the cross-validation.
        standardize: shift and scale each feature to mean 0 and variance 1 over the training videos.
        seed: of the folds.
        device: where to fit.

    Raises:
        UserError: a number is out of range.

    Example:
        >>> data = ProbeData(torch.eye(4), torch.tensor([0, 1, 0, 1]), torch.arange(4), 2)
        >>> SVMProbe(cost=10.0).score(data, torch.eye(4)).scores.argmax(dim=1).tolist()
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
        check_folds(self.folds, self.seed)

    def check(self, targets: Tensor, groups: Tensor) -> None:
        super().check(targets, groups)
        if self.costs:
            group_folds(targets, groups, folds=self.folds, seed=self.seed)

    def score(self, train: ProbeData, test: Tensor, *, show: bool = True) -> ProbeScores:
        costs = sorted({float(cost) for cost in self.costs or (self.cost,)})
        search = None
        if self.costs:
            search = cross_validate(
                "C", costs, self._accuracies, train, folds=self.folds, seed=self.seed, show=show
            )
        cost = costs[0] if search is None else search.best.value
        rows, unseen = prepared(train, test, self.standardize, self.device)
        fit = fit_svm(rows, cost)
        scores = (unseen @ fit.weight.to(unseen).T).cpu()
        return ProbeScores(scores, f"SVM, C = {cost:g}", search)

    def _accuracies(self, train: ProbeData, test: ProbeData, costs: Sequence[float]) -> list[float]:
        rows, unseen = prepared(train, test.features, self.standardize, self.device)
        found, fit = [], None
        for cost in costs:
            fit = fit_svm(rows, cost, start=None if fit is None else fit.weight)
            scores = (unseen @ fit.weight.to(unseen).T).cpu()
            found.append(topk_accuracy(scores, test.targets))
        return found


@dataclass(frozen=True, kw_only=True)
class LogisticProbe(Probe):
    """Logistic regression by SGD, all learning rates in one pass; the best by cross-validation.

    Attributes:
        learning_rates: to choose from.
        epochs: passes over the features.
        batch_size: videos per step.
        momentum: of SGD.
        weight_decay: of SGD.
        folds: of the cross-validation.
        standardize: shift and scale each feature to mean 0 and variance 1 over the training videos.
        seed: of the folds and of the order of the videos.
        device: where to fit.

    Raises:
        UserError: a number is out of range.
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
        check_folds(self.folds, self.seed)

    def check(self, targets: Tensor, groups: Tensor) -> None:
        super().check(targets, groups)
        if len(set(self.learning_rates)) > 1:
            group_folds(targets, groups, folds=self.folds, seed=self.seed)

    def score(self, train: ProbeData, test: Tensor, *, show: bool = True) -> ProbeScores:
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
        return ProbeScores(scores, f"logistic, learning rate {rate:g}", search)

    def _fit(
        self, train: ProbeData, test: Tensor, rates: Sequence[float], *, show: bool = False
    ) -> Tensor:
        rows, unseen = prepared(train, test, self.standardize, self.device)
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
                f"the logistic probe diverges at every learning rate of {list(rates)}; take smaller"
                " ones"
            )
        return scores

    def _accuracies(self, train: ProbeData, test: ProbeData, rates: Sequence[float]) -> list[float]:
        # A diverged one has accuracy 0.
        return [
            topk_accuracy(scores, test.targets) if bool(scores.isfinite().all()) else 0.0
            for scores in self._fit(train, test.features, rates)
        ]


@dataclass(frozen=True, kw_only=True)
class KNNProbe(Probe):
    """Weighted k-NN: each neighbour votes with weight exp(cosine similarity / T).

    Attributes:
        k: neighbours that vote.
        temperature: T.
        standardize: shift and scale each feature to mean 0 and variance 1 over the training videos.
        whiten: whiten them over the training videos, after that; see
            :func:`~vclr_lightning.functional.embedding.whitened`.
        device: where to compute.

    Raises:
        UserError: a number is out of range.
    """

    k: int = 20
    temperature: float = 0.07
    standardize: bool = False
    whiten: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_number("temperature", self.temperature, above=0)

    def score(self, train: ProbeData, test: Tensor, *, show: bool = True) -> ProbeScores:
        rows, unseen = prepared(train, test, self.standardize, self.device, whiten=self.whiten)
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
        changed = "".join(f", {n}" for n in ("standardize", "whiten") if getattr(self, n))
        return ProbeScores(scores.cpu(), f"k-NN, k = {k}, T = {self.temperature:g}{changed}")


PROBES: dict[str, type[Probe]] = {
    "svm": SVMProbe,
    "logistic": LogisticProbe,
    "knn": KNNProbe,
    "batchnorm": BatchNormProbe,
}
"""Probes by name."""


def fit_svm(rows: ProbeData, cost: float, *, start: Tensor | None = None) -> SVMFit:
    """Fit in single precision, or in double where single cannot reach the duality gap."""
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
