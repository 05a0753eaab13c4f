"""Which keys are normalised together, in a single process; see test_distributed for several."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.modules.key_batchnorm import (
    encode_apart,
    resolve_mode,
    shuffle_routes,
    split_videos,
)


class Recorder:
    """An encoder that returns the first value of each clip, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        self.batches.append(clips[:, 0, 0].tolist())
        return {"features": clips[..., :1].float(), "maps": clips.float()}


@settings(deadline=None, max_examples=40)
@given(videos=st.integers(1, 9), groups=st.integers(1, 5), seed=st.integers(0, 99))
def test_split_normalises_groups_of_different_videos_apart_in_order(
    videos: int, groups: int, seed: int
) -> None:
    clips = torch.arange(videos)[:, None, None].expand(-1, 2, 3)
    record = Recorder()
    out = split_videos(clips, record, groups=groups, rng=torch.Generator().manual_seed(seed))
    assert out["features"][:, :, 0].tolist() == [[v, v] for v in range(videos)]
    assert torch.equal(out["maps"], clips.float())
    assert len(record.batches) == min(groups, videos)
    assert sorted(video for batch in record.batches for video in batch) == list(range(videos))
    sizes = [len(batch) for batch in record.batches]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("videos", "sizes"), [(1, [1]), (3, [3]), (4, [2, 2]), (9, [3, 2, 2, 2])])
def test_no_group_is_a_single_clip(videos: int, sizes: list[int]) -> None:
    record = Recorder()
    split_videos(torch.arange(videos)[:, None, None], record, groups=4, rng=torch.Generator())
    assert [len(batch) for batch in record.batches] == sizes


def test_split_draws_another_permutation_for_another_step() -> None:
    clips = torch.arange(16)[:, None, None]
    seen = []
    for seed in (0, 0, 1):
        record = Recorder()
        split_videos(clips, record, groups=4, rng=torch.Generator().manual_seed(seed))
        seen.append(record.batches)
    assert seen[0] == seen[1] != seen[2]


def test_split_batchnorm_uses_the_statistics_of_the_group() -> None:
    clips = torch.randn(8, 2, 3)
    norm = nn.BatchNorm1d(3, momentum=1.0)
    groups: list[Tensor] = []

    def encode(x: Tensor) -> dict[str, Tensor]:
        groups.append(x)
        return {"features": norm(x.flatten(0, 1)).view_as(x)}

    rng = torch.Generator().manual_seed(0)
    out = split_videos(clips, encode, groups=2, rng=rng)["features"]
    assert not torch.allclose(out, norm(clips.flatten(0, 1)).view_as(clips), atol=1e-3)
    for group in groups:
        flat = group.flatten(0, 1)
        expected = (group - flat.mean(0)) / (flat.var(0, unbiased=False) + norm.eps).sqrt()
        where = [int((clips == video).all(-1).all(-1).nonzero()) for video in group]
        torch.testing.assert_close(out[where], expected)


@settings(deadline=None, max_examples=60)
@given(videos=st.integers(1, 9), world=st.integers(2, 6), seed=st.integers(0, 99))
def test_routes_are_balanced_and_mix_ranks(videos: int, world: int, seed: int) -> None:
    routes = shuffle_routes(videos, world, torch.Generator().manual_seed(seed))
    for rank in range(world):
        # Every rank sends and receives as many as it has, and no more than its share to itself.
        assert int((routes == rank).sum()) == videos
        assert int((routes[rank] == rank).sum()) == videos // world
        counts = torch.bincount(routes[rank], minlength=world)
        assert int(counts.max() - counts.min()) <= 1


def test_modes() -> None:
    with_norm, without = nn.Sequential(nn.BatchNorm2d(2)), nn.Sequential(nn.GroupNorm(1, 2))
    assert resolve_mode("auto", world_size=1, encoder=with_norm) == "split"
    assert resolve_mode("auto", world_size=2, encoder=with_norm) == "shuffle"
    assert resolve_mode("auto", world_size=2, encoder=without) == "none"
    assert resolve_mode("split", world_size=2, encoder=without) == "split"
    with pytest.raises(
        UserError, match=r"'shuffle' of a momentum encoder has nothing to shuffle over.*'auto'"
    ):
        resolve_mode("shuffle", world_size=1, encoder=with_norm)


@pytest.mark.parametrize("mode", ["none", "sync"])
def test_together(mode: str) -> None:
    record = Recorder()
    clips = torch.arange(4)[:, None, None]
    encode_apart(clips, record, mode=mode, groups=2, rng=torch.Generator())  # type: ignore[arg-type]
    assert record.batches == [[0, 1, 2, 3]]
