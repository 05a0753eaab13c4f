"""A worker that reads thousands of videos, good and bad ones, holds on to nothing."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler


def memory() -> float:
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_thousand_videos_leave_nothing_behind(
    damaged: Manifest, reader: VideoReader, transform: ClipTransform
) -> None:
    data = VideoDataset(
        manifest=damaged,
        reader=reader,
        samplers={"tuples": TupleSampler()},
        transform=transform,
        views={"second"},
    )
    for number in range(2200):
        data[number // 18, number % 18]
        if number == 200:
            gc.collect()
            before, opened = memory(), descriptors()
    gc.collect()
    assert memory() - before < 20
    assert descriptors() == opened
