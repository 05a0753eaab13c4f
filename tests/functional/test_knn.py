"""Votes of the nearest, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vclr_lightning.functional.knn import knn_scores

GALLERY = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0], [-1.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 2])


def test_votes_by_hand() -> None:
    scores = knn_scores(
        torch.tensor([[3.0, 0.0]]), GALLERY, LABELS, num_classes=3, k=3, temperature=0.5
    )
    votes = [math.exp(1 / 0.5), math.exp(0.6 / 0.5) + math.exp(0.0), 0.0]
    assert scores[0].tolist() == pytest.approx([v / sum(votes) for v in votes], abs=1e-6)


def test_small_temperature_is_the_nearest_and_large_the_majority() -> None:
    query = torch.tensor([[1.0, 0.1]])
    for temperature, label in ((1e-3, 0), (1e3, 1)):
        scores = knn_scores(query, GALLERY, LABELS, num_classes=3, k=3, temperature=temperature)
        assert scores.argmax(dim=1).tolist() == [label]
        assert scores.sum().item() == pytest.approx(1)


def test_more_neighbours_than_there_are() -> None:
    scores = knn_scores(GALLERY, GALLERY, LABELS, num_classes=3, k=99)
    assert scores.argmax(dim=1).tolist() == LABELS.tolist()
