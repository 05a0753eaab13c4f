"""The metric equals the figures of other people's evaluation, however videos are batched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.average_recall_metric import AverageRecallAtAN

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_equals_the_reference(
    random_dense: tuple[list[np.ndarray], list[np.ndarray]], batch: int
) -> None:
    expected = json.loads((REFERENCE / "g6_aran.json").read_text())["random_dense"]
    proposals, truths = random_dense
    metric = AverageRecallAtAN()
    for first in range(0, len(truths), batch):
        metric.update(proposals[first : first + batch], truths[first : first + batch])
    values = {name: float(value) for name, value in metric.compute().items()}
    for number in (1, 5, 10, 100):
        assert values[f"ar{number}"] == pytest.approx(expected[f"AR@{number}"], abs=1e-6)
    assert 100 * values["auc"] == pytest.approx(expected["auc"], abs=1e-4)
    recall = np.load(REFERENCE / "g6_recall.npz")["random_dense_recall"]
    np.testing.assert_allclose(metric.curve().recall, recall, atol=1e-6)


def test_two_processes_give_what_one_gives(
    random_dense: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    proposals, truths = random_dense
    one, *ranks = (AverageRecallAtAN() for _ in range(3))
    one.update(proposals, truths)
    for number, rank in enumerate(ranks):
        rank.update(proposals[number::2], truths[number::2])
    # What torchmetrics' synchronisation does to the states, without the processes.
    for state in ("proposals", "truths", "counts"):
        joined = torch.cat([torch.cat(getattr(rank, state)) for rank in ranks])
        setattr(ranks[0], state, joined)
    assert ranks[0].compute() == one.compute()


def test_videos_without_proposals_or_truth() -> None:
    metric = AverageRecallAtAN(numbers=(100,))
    one, nothing = np.array([[0.0, 1.0, 0.9]]), np.zeros((0, 3))
    metric.update([one, nothing, one], [one[:, :2], one[:, :2], nothing[:, :2]])
    assert float(metric.compute()["ar100"]) == 0.5


def test_mistakes() -> None:
    with pytest.raises(UserError, match="AR@0 is not defined"):
        AverageRecallAtAN(numbers=(0,))
    metric = AverageRecallAtAN()
    with pytest.raises(UserError, match="no videos"):
        metric.curve()
    with pytest.raises(UserError, match="1 videos have proposals, and 2 truths"):
        metric.update([np.zeros((0, 3))], [np.zeros((0, 2))] * 2)
    metric.update([np.zeros((0, 3))], [np.zeros((1, 2))])
    with pytest.raises(UserError, match="nothing to measure"):
        metric.compute()
