"""AR@AN equals the figures that other people's evaluation gives, and a plain loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vclr_lightning.functional.proposals import (
    THRESHOLDS,
    average_recall,
    covered_share,
    temporal_iou,
)

REFERENCE = Path(__file__).parents[1] / "reference"


def test_equals_the_reference(random_dense: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    expected = json.loads((REFERENCE / "g6_aran.json").read_text())["random_dense"]
    result = average_recall(*random_dense)
    recall = np.load(REFERENCE / "g6_recall.npz")["random_dense_recall"]
    np.testing.assert_allclose(result.recall, recall, atol=1e-6)
    np.testing.assert_allclose(result.curve, expected["average_recall"], atol=1e-6)
    np.testing.assert_allclose(result.average_number, expected["proposals_per_video"], atol=1e-6)
    assert 100 * result.auc == pytest.approx(expected["auc"], abs=1e-4)
    for number in (1, 5, 10, 100):
        assert result.at(number) == pytest.approx(expected[f"AR@{number}"], abs=1e-6)


def _by_loops(proposals: list[np.ndarray], truths: list[np.ndarray]) -> np.ndarray:
    """Recall by nested loops over thresholds, columns, videos, segments and proposals."""
    videos = len(proposals)
    ratio = 100 * videos / sum(len(p) for p in proposals)
    kept = [sorted(p.tolist(), key=lambda row: -row[2])[: int(len(p) * ratio)] for p in proposals]
    total = sum(len(k) for k in kept)
    recall = np.zeros((len(THRESHOLDS), 100))
    for j in range(100):
        factor = (j + 1) / 100 * (100 * videos / total)
        for i, threshold in enumerate(THRESHOLDS):
            hits = 0
            for rows, truth in zip(kept, truths, strict=True):
                used = rows[: min(len(rows), int(len(rows) * factor))]
                for start, end in truth:
                    for s, e, _ in used:
                        shared = max(0.0, min(end, e) - max(start, s))
                        if shared / ((end - start) + (e - s) - shared) >= threshold:
                            hits += 1
                            break
            recall[i, j] = hits / sum(len(t) for t in truths)
    return recall


def test_equals_nested_loops_on_uneven_videos() -> None:
    rng = np.random.default_rng(0)

    def segments(n: int) -> np.ndarray:
        start = rng.uniform(0, 8, n)
        return np.stack([start, start + rng.uniform(0.5, 4, n)], axis=1)

    proposals = [np.c_[segments(n), rng.random(n)] for n in (0, 1, 7, 40, 150)]
    truths = [segments(n) for n in (2, 0, 1, 3, 5)]
    np.testing.assert_allclose(
        average_recall(proposals, truths).recall, _by_loops(proposals, truths), atol=1e-12
    )


def test_nothing_to_compare_is_an_error() -> None:
    nothing, one = np.zeros((0, 3)), np.array([[0.0, 1.0, 0.5]])
    with pytest.raises(ValueError, match="nothing to compare"):
        average_recall([nothing], [one[:, :2]])
    with pytest.raises(ValueError, match="1 videos with proposals, 2 with truth"):
        average_recall([one], [one[:, :2]] * 2)


def test_overlap_of_empty_intervals_is_zero() -> None:
    point = np.array([[1.0, 1.0]])
    assert temporal_iou(point, point).tolist() == [[0.0]]
    assert covered_share(np.array([[0.0, 2.0]]), point).tolist() == [[0.0]]
