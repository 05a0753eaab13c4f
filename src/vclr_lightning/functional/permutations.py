"""Shuffles of a short sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sample_shuffle(
    size: int, rng: np.random.Generator, *, exclude_reversal: bool = True
) -> NDArray[np.int64]:
    """Draw a shuffle of ``size`` positions, uniformly among those allowed.

    A shuffle is never the identity, and from three positions on never the exact reversal either
    (a reversed action is often a plausible one). Two positions have only the swap, which is
    used; one position has no shuffle, and the identity is returned (Section 3.2 of the paper).

    Args:
        size: number of positions, at least 1.
        rng: source of randomness.
        exclude_reversal: whether the exact reversal is left out from three positions on.

    Shape:
        Returns ``(size,)`` int64.

    Example:
        >>> sample_shuffle(2, np.random.default_rng(0))
        array([1, 0])
    """
    identity = np.arange(size, dtype=np.int64)
    if size < 2:
        return identity
    while True:
        order = rng.permutation(size)
        if np.array_equal(order, identity):
            continue
        if exclude_reversal and size > 2 and np.array_equal(order, identity[::-1]):
            continue
        return order
