"""Epochs: the same global batches on any number of ranks, and every position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.epochs import (
    EpochBatches,
    epoch_order,
    micro_batch_size,
    rank_batches,
    rank_shard,
)

parts = st.integers(1, 4)


@given(world=parts, accumulate=parts, micro=st.integers(1, 4), steps=st.integers(1, 5))
def test_ranks_together_give_the_global_batches_in_order(
    world: int, accumulate: int, micro: int, steps: int
) -> None:
    size = world * accumulate * micro
    order = np.random.default_rng(size).permutation(size * steps + size - 1)
    shares = [
        rank_batches(order, size, world_size=world, rank=rank, accumulate=accumulate)
        for rank in range(world)
    ]
    assert {share.shape for share in shares} == {(steps * accumulate, micro)}
    # Gathered over ranks for each micro-batch, and these one after the other.
    gathered = np.concatenate(shares, axis=1).ravel()
    assert gathered.tolist() == order[: size * steps].tolist()


@given(n=st.integers(1, 300), world=st.integers(1, 9))
def test_shards_hold_all_once(n: int, world: int) -> None:
    shards = [rank_shard(n, world_size=world, rank=rank) for rank in range(world)]
    assert [row for shard in shards for row in shard] == list(range(n))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_epochs_are_different_permutations() -> None:
    orders = [
        epoch_order(50, seed=seed, epoch=epoch).tolist() for seed in (0, 1) for epoch in (0, 1)
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == epoch_order(50, seed=0, epoch=0).tolist()


def test_keys_carry_the_epoch_and_begin_where_told() -> None:
    batches = EpochBatches(11, batch_size=2, seed=3)
    batches.set_epoch(4)
    whole = list(batches)
    assert len(whole) == len(batches) == 5
    assert [row for batch in whole for _, row in batch] == epoch_order(11, seed=3, epoch=4)[
        :10
    ].tolist()
    assert {epoch for batch in whole for epoch, _ in batch} == {4}
    batches.resume(4, 3)
    iter(batches)  # asked for and thrown away, as torch does
    assert list(batches) == whole[3:]
    assert list(batches) == whole


def test_a_new_epoch_forgets_the_position_and_the_same_one_keeps_it() -> None:
    batches = EpochBatches(8, batch_size=2)
    batches.resume(2, 3)
    batches.set_epoch(2)
    assert (batches.start, batches.consumed) == (3, 3)
    batches.set_epoch(3)
    assert (batches.start, batches.consumed) == (0, 0)


def test_a_fixed_epoch_comes_again_and_again() -> None:
    batches = EpochBatches(8, batch_size=2, fixed_epoch=0)
    first = list(batches)
    batches.set_epoch(5)
    assert list(batches) == first


@pytest.mark.parametrize(
    ("size", "world", "accumulate", "message"),
    [
        (30, 4, 2, r"4 process\(es\) x 2 accumulated micro-batch\(es\); take 24 or 32"),
        (3, 4, 2, "take 8$"),
        (0, 1, 1, "take 1$"),
    ],
)
def test_uneven_batches_are_refused(size: int, world: int, accumulate: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        micro_batch_size(size, world_size=world, accumulate=accumulate)


def test_too_few_videos_are_refused() -> None:
    with pytest.raises(UserError, match=r"there are 11 training videos.*take batch_size=8 or less"):
        EpochBatches(11, batch_size=16, world_size=2, accumulate=2)
    with pytest.raises(UserError, match="need 4 videos"):
        EpochBatches(3, batch_size=16, world_size=2, accumulate=2)
