"""Permutations as classes, and what a network is shown to recognise them by."""

from __future__ import annotations

from itertools import permutations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


def permutation_table(size: int, *, up_to_reversal: bool = False) -> NDArray[np.int64]:
    """Return all permutations of ``size`` positions in lexicographic order; row c is class c.

    Args:
        size: number of positions, at least 1.
        up_to_reversal: keep one permutation, the first, of each pair that are each other's
            reversal.

    Shape: Returns ``(classes, size)``.

    Example:
        >>> permutation_table(3).tolist()
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        >>> permutation_table(3, up_to_reversal=True).tolist()
        [[0, 1, 2], [0, 2, 1], [1, 0, 2]]
    """
    rows = list(permutations(range(size)))
    if up_to_reversal:
        rows = [row for row in rows if row <= row[::-1]]
    return np.array(rows, dtype=np.int64)


def permutation_classes(size: int, *, up_to_reversal: bool = False) -> int:
    """Return the number of rows of :func:`permutation_table`.

    Example:
        >>> permutation_classes(3), permutation_classes(4, up_to_reversal=True)
        (6, 12)
    """
    return factorial(size) // (2 if up_to_reversal and size > 1 else 1)


def joined_pairs(x: Tensor) -> Tensor:
    """Concatenate every two rows of a tuple, the earlier position first.

    The pairs are those of positions 0 and 1, 0 and 2, ..., 1 and 2, ... (Lee et al., "Unsupervised
    representation learning by sorting sequences", ICCV 2017, Section 3.3).

    Shape: ``(B, n, F)`` to ``(B, n (n - 1) / 2, 2 F)``.

    Example:
        >>> joined_pairs(torch.tensor([[[1], [2], [3]]])).tolist()
        [[[1, 2], [1, 3], [2, 3]]]
    """
    size = x.shape[1]
    first, second = torch.triu_indices(size, size, offset=1, device=x.device)
    return torch.cat([x[:, first], x[:, second]], dim=2)
