"""Which videos make which batch: the order of an epoch, divided among ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray


def micro_batch_size(batch_size: int, *, world_size: int = 1, accumulate: int = 1) -> int:
    """Return the videos of one rank's micro-batch, of a global batch of ``batch_size`` videos.

    Raises:
        UserError: the global batch cannot be divided evenly; the message names the nearest values
            that can.

    Example:
        >>> micro_batch_size(512, world_size=8, accumulate=2)
        32
    """
    parts = world_size * accumulate
    if batch_size < 1 or batch_size % parts:
        below = batch_size // parts * parts
        nearest = f"{below} or {below + parts}" if below > 0 else f"{parts}"
        raise UserError(
            f"batch_size={batch_size} videos per optimizer step cannot be shared evenly by "
            f"{world_size} process(es) x {accumulate} accumulated micro-batch(es); take {nearest}"
        )
    return batch_size // parts


def epoch_order(num_videos: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, the same on every rank, ``(num_videos,)`` int64."""
    return numpy_generator(seed, epoch, "order").permutation(num_videos)


def rank_batches(
    order: NDArray[np.int64],
    batch_size: int,
    *,
    world_size: int = 1,
    rank: int = 0,
    accumulate: int = 1,
) -> NDArray[np.int64]:
    """Cut an epoch's order into the micro-batches of one rank.

    A global batch is cut into ``accumulate`` parts in order, and each part into one contiguous
    block per rank, so any number of ranks gives the same global batches in the same order. An
    incomplete last global batch is dropped.

    Shape:
        ``order`` ``(N,)``; returns ``(N // batch_size * accumulate, micro-batch)``.

    Example:
        >>> rank_batches(np.arange(10), 4, world_size=2, rank=1).tolist()
        [[2, 3], [6, 7]]
    """
    micro = micro_batch_size(batch_size, world_size=world_size, accumulate=accumulate)
    complete = order[: len(order) // batch_size * batch_size]
    return complete.reshape(-1, world_size, micro)[:, rank]


def rank_shard(num_videos: int, *, world_size: int = 1, rank: int = 0) -> range:
    """Return one rank's contiguous part of all videos, none left out, none twice.

    Example:
        >>> [list(rank_shard(5, world_size=2, rank=rank)) for rank in range(2)]
        [[0, 1], [2, 3, 4]]
    """
    return range(num_videos * rank // world_size, num_videos * (rank + 1) // world_size)


class EpochBatches:
    """The batches of one rank in an epoch: lists of ``(epoch, row)`` keys.

    For a torch ``DataLoader`` as ``batch_sampler``; keys contain the epoch, so workers need no
    notice of it. Iterating begins at the position last given to :meth:`resume`, once, and
    otherwise at the beginning of the epoch.

    Args:
        num_videos: of the manifest.
        batch_size: videos per optimizer step, over all ranks and accumulated micro-batches.
        seed: of the order.
        world_size: number of ranks.
        rank: this one.
        accumulate: micro-batches per optimizer step.
        fixed_epoch: repeat this epoch's batches in every epoch (to overfit a few on purpose).

    Attributes:
        epoch: the current one.
        consumed: batches consumed of it, counted by the loader, since an iterator runs ahead.

    Raises:
        UserError: the batch cannot be divided evenly, or there are fewer videos than it needs.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        batch_size: int,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        fixed_epoch: int | None = None,
    ) -> None:
        micro_batch_size(batch_size, world_size=world_size, accumulate=accumulate)
        if num_videos < batch_size:
            parts = world_size * accumulate
            most = num_videos // parts * parts
            advice = (
                f"take batch_size={most} or less"
                if most
                else f"{world_size} process(es) x {accumulate} micro-batch(es) need {parts} videos"
            )
            raise UserError(
                f"there are {num_videos} training videos, fewer than one batch of "
                f"batch_size={batch_size}; {advice}"
            )
        self.epoch = 0
        self.consumed = 0
        self._start = 0
        self._num_videos = num_videos
        self._batch_size = batch_size
        self._seed = seed
        self._share = {"world_size": world_size, "rank": rank, "accumulate": accumulate}
        self._fixed_epoch = fixed_epoch

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning calls ``set_epoch`` of ``loader.batch_sampler.sampler``."""
        return self

    @property
    def start(self) -> int:
        """Where the next iteration begins."""
        return self._start

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``; within that very epoch, stay."""
        if epoch != self.epoch:
            self.resume(epoch, 0)

    def resume(self, epoch: int, batch: int) -> None:
        """Go to batch ``batch`` of ``epoch``."""
        self.epoch = epoch
        self.consumed = self._start = batch

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever the position."""
        return self._num_videos // self._batch_size * self._share["accumulate"]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # A generator: a DataLoader may ask for an iterator and throw it away unused.
        start, self._start = self._start, 0
        epoch = self.epoch if self._fixed_epoch is None else self._fixed_epoch
        order = epoch_order(self._num_videos, seed=self._seed, epoch=epoch)
        for rows in rank_batches(order, self._batch_size, **self._share)[start:]:
            yield [(epoch, row) for row in rows.tolist()]
