"""What boundary-matching networks (BMN) are trained towards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vclr_lightning.functional.intervals import Floats, covered_share, temporal_iou


class BMNLabels(NamedTuple):
    """Labels of one video, on ``T`` positions.

    Attributes:
        iou: largest tIoU of every cell with any true segment, ``(T, T)``: ``iou[d, s]`` is the
            cell from position ``s`` on that is ``d + 1`` positions long.
        start: how much of each position's neighbourhood is a true start, ``(T,)``.
        end: the same for ends, ``(T,)``.
    """

    iou: Floats
    start: Floats
    end: Floats


def bmn_labels(segments: Floats, positions: int = 100) -> BMNLabels:
    """Return the labels of a video with these true segments.

    Args:
        segments: start and end as shares of the video, 0 to 1.
        positions: T.

    Shape:
        ``segments``: ``(g, 2)``.

    Example:
        >>> labels = bmn_labels(np.array([[0.2, 0.6]]), positions=10)
        >>> float(labels.iou[3, 2].round(6)), int(labels.start.argmax()), int(labels.end.argmax())
        (1.0, 1, 5)
    """
    gap = 1.0 / positions
    start = gap * np.arange(positions)
    duration = gap * np.arange(1, positions + 1)
    cells = np.stack(
        [
            np.broadcast_to(start[None, :], (positions, positions)),
            start[None, :] + duration[:, None],
        ],
        axis=-1,
    ).reshape(-1, 2)
    anchors = np.stack([start - 0.5 * gap, start + 1.5 * gap], axis=1)

    def near(times: Floats) -> Floats:
        return np.stack([times - 1.5 * gap, times + 1.5 * gap], axis=1)

    def largest(shares: Floats) -> Floats:
        best: Floats = shares.max(axis=1, initial=0.0)
        return best

    return BMNLabels(
        iou=largest(temporal_iou(cells, segments)).reshape(positions, positions),
        start=largest(covered_share(anchors, near(segments[:, 0]))),
        end=largest(covered_share(anchors, near(segments[:, 1]))),
    )
