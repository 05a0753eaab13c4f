"""Evaluation samples: which frames, in which order, and what fills up short videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.evaluation_datasets import FramesDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader

Decode = Callable[[Path], list[NDArray[np.uint8]]]


@pytest.mark.parametrize("m", [1, 7, 50])
def test_frames_are_evenly_spread_and_filled_up(
    manifest: Manifest, reader: VideoReader, eval_transform: ClipTransform, decode: Decode, m: int
) -> None:
    data = FramesDataset(manifest=manifest, reader=reader, transform=eval_transform, num_frames=m)
    for row in (0, 9):
        sample, frames = data[row], decode(manifest.path(row))
        n = len(frames)
        indices = np.rint(np.linspace(0, n - 1, m)).astype(int) if n >= m else np.arange(n)
        pictures = [eval_transform([frames[r]], np.random.default_rng(0)) for r in indices]
        assert sample["count"] == len(indices)
        assert sample["mask"].tolist() == [k < len(indices) for k in range(m)]
        assert sample["frames"].shape == (m, 3, 1, 32, 32)
        assert torch.equal(sample["frames"][: len(indices)], torch.stack(pictures))
        assert (sample["frames"][len(indices) :] == pictures[-1]).all()
        assert (sample["index"], sample["label"]) == (row, manifest.label(row))


def test_a_bad_video_is_blank_and_says_why(
    damaged: Manifest, reader: VideoReader, eval_transform: ClipTransform
) -> None:
    data = FramesDataset(manifest=damaged, reader=reader, transform=eval_transform)
    sample = data[8]
    assert not sample["valid"]
    assert not sample["mask"].any()
    assert (sample["count"], sample["video_id"]) == (0, 8)
    assert [item["path"] for item in sample["rejected"]] == [str(damaged.path(8))]


def test_no_frames_are_refused(
    manifest: Manifest, reader: VideoReader, eval_transform: ClipTransform
) -> None:
    with pytest.raises(UserError, match="num_frames=0 must be at least 1"):
        FramesDataset(manifest=manifest, reader=reader, transform=eval_transform, num_frames=0)
