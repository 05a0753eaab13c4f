"""Stratified cross-validation folds that keep groups whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator


def group_folds(labels: Tensor, groups: Tensor, *, folds: int, seed: int = 0) -> Tensor:
    """Assign rows to folds so that no group is split and classes are spread evenly.

    Groups are assigned in descending order of size, each to the fold in which its classes are
    rarest and, among equal folds, to the one with the fewest rows.

    Args:
        labels: class of each row.
        groups: rows of one group stay together; a row of group -1 is a group of its own.
        folds: number of folds.
        seed: of the order of groups of equal size.

    Shape: - labels, groups: ``(N,)``; returns ``(N,)`` int64 in ``0 .. folds - 1``

    Raises:
        UserError: there are fewer than two folds, or fewer groups than folds.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> group_folds(labels, torch.tensor([5, 5, 7, 8, 8, 9]), folds=2).tolist()
        [0, 0, 1, 1, 1, 0]
    """
    if folds < 2:
        raise UserError(f"folds={folds} must be 2 or more")
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group if group >= 0 else -row - 2, []).append(row)
    if len(members) < folds:
        raise UserError(
            f"the training videos form {len(members)} groups (sources), too few for "
            f"folds={folds}; take fewer folds or more videos"
        )
    label = labels.tolist()
    total = Counter(label)
    held = [Counter[int]() for _ in range(folds)]  # rows by class
    rows = [0] * folds
    drawn = numpy_generator(seed, "folds").permutation(np.fromiter(members, dtype=np.int64))
    result = torch.empty(len(label), dtype=torch.int64)
    # Sorting is stable: groups of equal size keep the drawn order.
    for group in sorted(drawn.tolist(), key=lambda g: -len(members[g])):
        counts = Counter(label[row] for row in members[group])

        def crowded(fold: int, counts: Counter[int] = counts) -> tuple[float, int]:
            share = sum(n * held[fold][c] / total[c] ** 2 for c, n in counts.items())
            return share, rows[fold]

        fold = min(range(folds), key=crowded)
        held[fold].update(counts)
        rows[fold] += len(members[group])
        result[members[group]] = fold
    return result
