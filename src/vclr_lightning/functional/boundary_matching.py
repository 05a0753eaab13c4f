"""What BMN reads: snippet features at fixed positions, and the samples of every proposal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_MARGIN = 1e-4  # of a snippet, excluded at either end
_POINTS = 3  # averaged at each position


def resample_snippets(features: Tensor, positions: int = 100) -> Tensor:
    """Interpolate features of m snippets linearly at ``positions`` positions along the video.

    With a = (m - 1 - 2e-4) / positions, position i is the mean of the linear interpolation at
    1e-4 + (i + j / 3) a, j = 0, 1, 2; a single snippet is repeated. This is the input of temporal
    action localization (Section 4.4 of the paper).

    Shape: ``(m, F)``, m at least 1, to ``(positions, F)``

    Example:
        >>> [f"{x:.3f}" for x in resample_snippets(torch.tensor([[0.0], [6.0]]), 3)[:, 0]]
        ['0.667', '2.667', '4.666']
    """
    m = len(features)
    if m == 1:
        return features.expand(positions, -1).clone()
    step = (m - 1 - 2 * _MARGIN) / positions
    points = torch.arange(positions * _POINTS, dtype=torch.float64, device=features.device)
    points = _MARGIN + points / _POINTS * step  # (positions * 3,)
    left = points.floor().long().clamp(max=m - 2)
    share = (points - left)[:, None].to(features.dtype)
    sampled = torch.lerp(features[left], features[left + 1], share)
    return sampled.view(positions, _POINTS, -1).mean(dim=1)


class MatchingWeights(NamedTuple):
    """Sparse weights of all proposals' samples over the positions."""

    matrix: Tensor  # (cells, samples * T); sample n takes matrix[cell, n * T + t] of position t
    duration: Tensor  # (cells,), duration index d of each cell
    start: Tensor  # (cells,), start position s of each cell


def sample_positions(
    start: Tensor, duration: Tensor, *, samples: int, points: int, ratio: float
) -> Tensor:
    """Return where each proposal is sampled, in positions.

    A proposal from ``s``, ``L = d + 1`` long, is sampled evenly from ``s - ratio L`` to
    ``s + d + ratio L``, both included, at ``samples`` times ``points``.

    Shape: ``start``, ``duration``: ``(cells,)``; returns ``(cells, samples, points)`` float64.

    Example:
        >>> s, d = torch.tensor([2]), torch.tensor([1])
        >>> sample_positions(s, d, samples=2, points=2, ratio=0.5).flatten().tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    margin = ratio * (duration.double() + 1)
    low = start.double() - margin
    step = (duration + 2 * margin) / (samples * points - 1)
    grid = torch.arange(samples * points, dtype=torch.float64)
    return (low[:, None] + step[:, None] * grid).reshape(-1, samples, points)


def matching_weights(
    positions: int = 100, *, samples: int = 32, points: int = 3, ratio: float = 0.5
) -> MatchingWeights:
    """Build the boundary-matching weights of all proposals that end inside the video.

    Each sample is the mean of ``points`` linear interpolations; points outside the video count 0,
    except that a point between -1 and 0 takes position 0 with full weight, as the common
    implementations do by truncating towards zero.

    Args:
        positions: T.
        samples: samples along a proposal.
        points: interpolations averaged for one sample.
        ratio: margin before and after a proposal, relative to its length.

    Example:
        >>> weights = matching_weights(4, samples=2, points=1)
        >>> weights.matrix.shape, len(weights.start)
        (torch.Size([10, 8]), 10)
    """
    duration, start = torch.meshgrid(
        torch.arange(positions), torch.arange(positions), indexing="ij"
    )
    inside = start + duration < positions
    duration, start = duration[inside], start[inside]
    where = sample_positions(start, duration, samples=samples, points=points, ratio=ratio)
    below, above = where.trunc(), where.ceil()
    share = where - below  # negative before the video begins
    cells = torch.arange(len(start))[:, None, None].expand_as(where)
    sample = torch.arange(samples)[None, :, None].expand_as(where)
    entries = []
    for position, weight in ((below, 1 - share), (above, share)):
        valid = (position >= 0) & (position < positions)
        column = sample * positions + position.long()
        entries.append((cells[valid], column[valid], weight[valid] / points))
    rows, columns, values = (torch.cat(parts) for parts in zip(*entries, strict=True))
    matrix = torch.sparse_coo_tensor(
        torch.stack([rows, columns]),
        values,
        (len(start), samples * positions),
        check_invariants=False,
    )
    return MatchingWeights(matrix.coalesce(), duration, start)
