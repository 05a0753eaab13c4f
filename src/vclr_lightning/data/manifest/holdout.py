"""Hold out a share of the videos, whole groups at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator


def held_out(groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose about ``share`` of the videos, so that no group is torn apart.

    Groups are taken in an order drawn from ``seed`` until the number of videos is as close to
    ``share`` of them as it gets; at least one group is taken and at least one is left.

    Args:
        groups: ``(videos,)`` code of each video's group.
        share: of the videos, between 0 and 1, exclusive.
        seed: of the draw.

    Returns:
        ``(videos,)`` bool, true where held out.

    Raises:
        UserError: the share is outside (0, 1), or there are fewer than two groups.

    Example:
        >>> held_out(np.array([7, 7, 9, 9]), 0.5, seed=0).sum()
        np.int64(2)
    """
    if not 0 < share < 1:
        raise UserError(f"the share of videos to hold out must lie between 0 and 1, not {share}")
    codes, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(codes) < 2:
        raise UserError(
            f"cannot hold videos out: {len(groups)} videos form {len(codes)} group(s), and a group "
            "is never torn apart; index with another --group-regex"
        )
    order = numpy_generator(seed, "hold_out").permutation(len(codes))
    taken = counts[order].cumsum()[:-1]
    number = int(np.abs(taken - share * len(groups)).argmin()) + 1
    chosen = np.zeros(len(codes), dtype=np.bool_)
    chosen[order[:number]] = True
    return chosen[inverse]
