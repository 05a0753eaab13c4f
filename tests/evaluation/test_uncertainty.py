"""Scores of single videos: their file, their means, and what is compared with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.uncertainty import VideoScores
from vclr_lightning.functional.bootstrap import bootstrap_interval
from vclr_lightning.results import write_table


def scores(right: list[float], **changes: object) -> VideoScores:
    given = {
        "videos": [f"{i}, a.mp4" for i in range(len(right))],
        "groups": [i // 2 for i in range(len(right))],
        "classes": ["run", "run", "run", "jump, high", "jump, high", "walk"][: len(right)],
        "measures": {"top1": np.array(right), "top5": np.ones(len(right))},
    }
    return VideoScores(**(given | changes))  # type: ignore[arg-type]


def test_the_mean_over_classes_is_torchmetrics(tmp_path: Path) -> None:
    label, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    found = scores((label == predicted).double().tolist())
    theirs = multiclass_accuracy(predicted, label, 3, average="macro")
    assert found.values["mean_class"] == pytest.approx(float(theirs))
    low, high = found.intervals()["mean_class"]
    assert low < found.values["mean_class"] < high
    assert found.intervals()["top1"] == bootstrap_interval([1, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2])


def test_they_survive_their_file(tmp_path: Path) -> None:
    one = scores([1, 0.5, 0, 1, 0, 1])
    write_table(one.table("scores_folds"), file := tmp_path / "scores_folds.csv")
    read = VideoScores.read(file)
    assert list(read.videos) == one.videos
    assert read.values == pytest.approx(one.values)
    assert read.intervals() == one.intervals()
    file.write_text("path,label\n")
    with pytest.raises(UserError, match=r"scores_folds\.csv holds no scores of videos"):
        VideoScores.read(file)


def test_intervals_are_those_of_the_file(tmp_path: Path) -> None:
    """Numbers of groups come back as words, which sort otherwise: "10" before "9"."""
    rng = np.random.default_rng(0)
    groups = rng.integers(5, 25, 40).tolist()
    videos = [str(i) for i in range(40)]
    scores = VideoScores(videos=videos, groups=groups, measures={"r1": rng.random(40)})
    write_table(scores.table(), tmp_path / "scores.csv")
    found = VideoScores.read(tmp_path / "scores.csv").intervals()
    assert found["r1"] == pytest.approx(scores.intervals()["r1"], abs=1e-6)


def test_several_others_count_by_their_mean() -> None:
    one, first, second = (scores(x) for x in ([1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]))
    value, low, high = one.differences(first, second)["top1"]
    assert value == pytest.approx(0.75 - 0.25)
    assert low <= value <= high
    assert one.differences(first, second)["top5"] == (0, 0, 0)


def test_other_videos_are_not_compared_and_one_group_has_no_interval() -> None:
    one = scores([1, 1, 1, 0])
    assert one.differences(scores([1, 1, 1, 0], videos=list("abcd"))) == {}
    assert scores([1, 0], groups=[7, 7]).intervals() == {}
