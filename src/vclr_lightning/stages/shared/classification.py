"""Scores of a classifier as a result: accuracies, confusion matrix, classes, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from vclr_lightning.evaluation.confusions import class_name, confusions
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.results import Column, ConfusionMatrix, Scalar, Table
from vclr_lightning.results.figures import NUMBERED

if TYPE_CHECKING:
    from vclr_lightning.evaluation.probe_result import ProbeResult

_CONFUSIONS = 12  # pairs of classes on the page
_TOP = 5  # scores of each video in predictions.csv


def classification(
    result: ProbeResult,
    *,
    classes: Sequence[str],
    num_classes: int,
    paths: Sequence[str],
    groups: Sequence[int],
) -> tuple[list[Scalar], list[ConfusionMatrix | Table]]:
    """Return the accuracies of a classifier; and confusion matrix, classes, predictions, scores.

    Args:
        result: scores of the test videos.
        classes: their names, as far as they have any.
        num_classes: number of classes.
        paths: files of the test videos.
        groups: of the test videos.
    """
    scores = VideoScores(
        videos=paths,
        groups=groups,
        classes=[class_name(label, classes) for label in result.label.tolist()],
        measures={name: right.double().numpy() for name, right in result.hits.items()},
    )
    intervals = scores.intervals()
    accuracies = [
        Scalar(name, share, chance=result.chance[name], interval=intervals.get(name))
        for name, share in result.accuracies.items()
    ]
    counts = result.confusion(num_classes)
    names = [class_name(label, classes) for label in range(num_classes)]
    shown = torch.unique(torch.cat([result.label, result.predicted]))
    mistakes = confusions(result.label, result.predicted)[:_CONFUSIONS]
    few = len(shown) <= NUMBERED
    content: list[ConfusionMatrix | Table] = [
        ConfusionMatrix(
            counts=counts[shown][:, shown],
            classes=[names[label] for label in shown.tolist()],
            text="A row for each true class, a column for each predicted class; correct "
            "predictions are on the diagonal. "
            + (
                "Numbers are videos."
                if few
                else "Point at a cell to see its classes and number; confusion.csv holds them all."
            ),
        ),
        Table(
            title="Most frequent confusions",
            shown="page",
            columns=[
                "true class",
                "predicted class",
                "videos",
                Column("of the class, %", unit="%"),
            ],
            rows=[(names[m.label], names[m.predicted], m.count, m.share) for m in mistakes],
        ),
        Table(
            title="Classes",
            file="classes",
            lowest="accuracy",
            columns=[
                "class",
                Column("videos", "test videos"),
                Column("training", "training videos"),
                Column("right", "correct"),
                Column("accuracy", "accuracy, %", unit="%"),
                Column("taken_for", "most often predicted as"),
            ],
            rows=[
                (
                    names[row.label],
                    row.videos,
                    row.training,
                    row.right,
                    row.right / row.videos,
                    "" if row.predicted is None else names[row.predicted],
                )
                for row in result.by_class()
            ],
        ),
        Table(
            file="confusion",
            shown="file",
            columns=["class", *names],
            rows=[[name, *row] for name, row in zip(names, counts.tolist(), strict=True)],
        ),
        Table(
            file="predictions",
            shown="file",
            columns=["path", "label", "predicted", "right", *_score_columns(result)],
            rows=list(_predictions(result, paths, names)),
        ),
        scores.table(),
    ]
    return accuracies, content


def _score_columns(result: ProbeResult) -> list[str]:
    top = min(_TOP, result.scores.shape[1])
    return [f"{what}{i}" for i in range(1, top + 1) for what in ("class", "score")]


def _predictions(
    result: ProbeResult, paths: Sequence[str], names: Sequence[str]
) -> Iterator[list[Any]]:
    """Yield each test video with its classes of the highest scores."""
    value, column = result.scores.topk(min(_TOP, result.scores.shape[1]), dim=1)
    best = result.columns[column].tolist()
    for path, label, some, scores in zip(
        paths, result.label.tolist(), best, value.tolist(), strict=True
    ):
        row = [path, names[label], names[some[0]], int(label == some[0])]
        for one, score in zip(some, scores, strict=True):  # without votes there is no class
            row += [names[one], score] if isfinite(score) else ["", ""]
        yield row
