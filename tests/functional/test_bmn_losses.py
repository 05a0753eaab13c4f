"""BMN's labels, losses and proposals against plain loops and hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vclr_lightning.functional.bmn_losses import (
    bmn_labels,
    bmn_losses,
    classification_loss,
    regression_loss,
    regression_weights,
    weighted_logistic,
)
from vclr_lightning.functional.proposals import candidate_proposals, random_proposals, soft_nms

T = 8
GAP = 1 / T
SEGMENTS = np.array([[0.1, 0.45], [0.5, 0.97]])


def test_labels_equal_loops() -> None:
    labels = bmn_labels(SEGMENTS, T)
    for d in range(T):
        for s in range(T):
            low, high = s * GAP, (s + d + 1) * GAP
            best = 0.0
            for a, b in SEGMENTS:
                shared = max(0.0, min(high, b) - max(low, a))
                best = max(best, shared / ((high - low) + (b - a) - shared))
            assert math.isclose(labels.iou[d, s], best, abs_tol=1e-12)
    for i in range(T):
        low, high = (i - 0.5) * GAP, (i + 1.5) * GAP
        for k, given in enumerate((labels.start, labels.end)):
            best = 0.0
            for segment in SEGMENTS:
                near = segment[k] - 1.5 * GAP, segment[k] + 1.5 * GAP
                best = max(best, max(0.0, min(high, near[1]) - max(low, near[0])) / (2 * GAP))
            assert math.isclose(given[i], best, abs_tol=1e-12)


def test_a_video_without_segments_has_empty_labels() -> None:
    labels = bmn_labels(np.zeros((0, 2)), T)
    assert not labels.iou.any()
    assert not labels.start.any()


def test_weighted_logistic_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.uniform(0.05, 0.95, 50), (rng.random(50) < 0.2).astype(float)
    ratio = min(max(50 / truth.sum(), 1.05), 21)
    c1, c0 = ratio / 2, ratio / (2 * (ratio - 1))
    expected = -np.mean(
        c1 * truth * np.log(scores + 1e-5) + c0 * (1 - truth) * np.log(1 - scores + 1e-5)
    )
    given = weighted_logistic(torch.tensor(scores), torch.tensor(truth))
    assert math.isclose(given.item(), expected, rel_tol=1e-9)


def test_no_positive_is_no_division_by_zero() -> None:
    assert torch.isfinite(weighted_logistic(torch.full((9,), 0.5), torch.zeros(9)))
    nothing = torch.zeros(1, 3, 3)
    assert regression_loss(nothing + 0.5, nothing, nothing).item() == 0.0


def test_regression_takes_all_high_cells_and_about_as_many_of_the_others() -> None:
    iou = torch.zeros(40, 100, 100)
    iou[:, :10, :10], iou[:, 10:50], iou[:, 50:90] = 0.8, 0.5, 0.1
    valid = torch.ones(100, 100)
    valid[:, 90:] = 0
    cells = regression_weights(iou, valid, generator=torch.Generator().manual_seed(0))
    high = int(((iou > 0.7) * cells).sum())
    assert high == 40 * 100
    for low, top in ((0.3, 0.7), (0.0, 0.3)):
        drawn = int(((iou > low) * (iou <= top) * cells).sum())
        assert abs(drawn - high) < 5 * math.sqrt(high)
    assert not cells[:, :, 90:].any()


# Cells (d, s) of one video on four positions, and what MMAction2's BMNLoss gives at the scores
# below for the regression. In the first two cases it takes every cell.
ORIGINAL = [
    (  # four high cells, one middle one, two low ones; (3, 1) ends past the video
        {(0, 0): 0.95, (0, 1): 0.9, (0, 2): 0.8, (0, 3): 0.75, (1, 0): 0.5, (1, 1): 0.2}
        | {(2, 0): 0.1, (3, 1): 0.9},
        {0.2479474545},
    ),
    (  # no middle one
        {(0, 0): 0.95, (0, 1): 0.9, (0, 2): 0.8, (0, 3): 0.75, (1, 0): 0.2, (1, 1): 0.2}
        | {(2, 0): 0.1, (3, 1): 0.9},
        {0.2428567708},
    ),
    ({(0, 0): 0.95, (0, 1): 0.5, (0, 2): 0.2}, {0.1260524541}),  # one of each: no draw
    (  # two high cells, one middle one, and half of four low ones: 16 draws
        {(0, 0): 0.95, (0, 1): 0.8, (1, 0): 0.5, (0, 2): 0.2, (0, 3): 0.1, (1, 1): 0.2}
        | {(2, 0): 0.1},
        {0.1973458976, 0.1577424556, 0.1822438240, 0.1746841520, 0.2147592604, 0.1491438597}
        | {0.1828945428, 0.1884473115, 0.2050314695, 0.1760722995, 0.2194143981, 0.2099171728}
        | {0.1418455243, 0.1912842542, 0.1503791064, 0.1677924991},
    ),
]


@pytest.mark.parametrize(("cells", "regression"), ORIGINAL)
def test_losses_are_the_original_s_also_where_high_cells_are_the_most(
    cells: dict[tuple[int, int], float], regression: set[float]
) -> None:
    at = torch.arange(4).double()
    iou = torch.zeros(1, 4, 4).double()
    for where, value in cells.items():
        iou[0, where[0], where[1]] = value
    cell = torch.arange(16).view(1, 4, 4).double()
    found: list[float] = []
    for seed in range(64 * len(regression)):
        losses = bmn_losses(
            torch.stack([0.5 + 0.4 * cell.sin(), 0.5 + 0.3 * cell.cos()], dim=1),
            0.5 + 0.4 * at.sin()[None],
            0.5 + 0.4 * at.cos()[None],
            iou=iou,
            start_label=torch.tensor([[0.9, 0, 0, 0]]).double(),
            end_label=torch.tensor([[0, 0, 0, 0.8]]).double(),
            generator=torch.Generator().manual_seed(seed),
        )
        assert losses.boundary.item() == pytest.approx(2.9089701820)
        assert losses.classification.item() == pytest.approx(0.4916100741)
        value = losses.regression.item()
        found.append(min(regression, key=lambda expected: abs(value - expected)))
        assert value == pytest.approx(found[-1], rel=2e-7)  # the original sums in float32
    share = [found.count(one) / len(found) * len(regression) for one in regression]
    assert all(0.5 < s < 1.6 for s in share)  # equally likely


def test_classification_ignores_cells_past_the_end() -> None:
    valid = torch.triu(torch.ones(4, 4)).flip(1)
    scores, iou = torch.rand(2, 4, 4) * 0.8 + 0.1, torch.rand(2, 4, 4)
    changed = torch.where(valid > 0, scores, torch.full_like(scores, 0.01))
    assert classification_loss(scores, iou) == classification_loss(changed, iou)


def test_candidates_equal_loops() -> None:
    rng = np.random.default_rng(1)
    start, end, maps = rng.random(T), rng.random(T), rng.random((2, T, T))
    expected = []
    for s in range(T):
        for e in range(s + 1, T):
            likely = []
            for scores, i, always in ((start, s, 0), (end, e, T - 1)):
                peak = 0 < i < T - 1 and scores[i] > scores[i - 1] and scores[i] > scores[i + 1]
                likely.append(peak or scores[i] > 0.5 * scores.max() or i == always)
            if all(likely):
                cell = maps[0, e - s - 1, s] * maps[1, e - s - 1, s]
                expected.append([s / T, e / T, start[s] * end[e] * cell])
    np.testing.assert_allclose(candidate_proposals(start, end, maps), expected)


def test_soft_nms_equals_loops_and_keeps_the_best() -> None:
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 0.7, 60)
    proposals = np.c_[low, low + rng.uniform(0.05, 0.3, 60), rng.random(60)]
    rows, expected = proposals.tolist(), []
    while rows and len(expected) < 10:
        best = max(rows, key=lambda row: row[2])
        rows.remove(best)
        expected.append(best)
        for row in rows:
            shared = max(0.0, min(best[1], row[1]) - max(best[0], row[0]))
            iou = shared / ((best[1] - best[0]) + (row[1] - row[0]) - shared)
            if iou > 0.5 + 0.4 * (best[1] - best[0]):
                row[2] *= math.exp(-(iou**2) / 0.4)
    np.testing.assert_allclose(soft_nms(proposals, keep=10), expected)
    assert soft_nms(np.zeros((0, 3))).shape == (0, 3)


def test_chance_proposes_every_segment_alike() -> None:
    drawn = random_proposals(np.random.default_rng(0), 20_000)
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert (np.diff(drawn[:, 2]) <= 0).all()
    # Of two even draws the lower is below x with chance 1 - (1 - x)^2, the higher with x^2.
    for x in (0.25, 0.5, 0.75):
        assert abs((drawn[:, 0] < x).mean() - (1 - (1 - x) ** 2)) < 0.02
        assert abs((drawn[:, 1] < x).mean() - x**2) < 0.02
    # The order says nothing of the place.
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.03


def test_soft_nms_takes_whole_numbers() -> None:
    whole = np.array([[0, 1, 2], [0, 1, 1]])
    np.testing.assert_array_equal(soft_nms(whole), soft_nms(whole.astype(float)))
