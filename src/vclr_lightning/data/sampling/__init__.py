"""Which frames of a video make its views."""

from vclr_lightning.data.sampling.block_sampler import BlockSampler
from vclr_lightning.data.sampling.clip_pair_sampler import (
    ClipPairSampler,
    IntervalSampler,
    TwoRateSampler,
)
from vclr_lightning.data.sampling.frame_pair_sampler import FramePairSampler
from vclr_lightning.data.sampling.halves_sampler import HalvesSampler
from vclr_lightning.data.sampling.pace_sampler import PaceSampler
from vclr_lightning.data.sampling.prefixed import Prefixed
from vclr_lightning.data.sampling.segment_sampler import SegmentSampler
from vclr_lightning.data.sampling.speed_sampler import SpeedSampler
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.sampling.windows import RandomWindow, SlidingWindows

__all__ = [
    "BlockSampler",
    "ClipPairSampler",
    "FramePairSampler",
    "HalvesSampler",
    "IntervalSampler",
    "PaceSampler",
    "Prefixed",
    "RandomWindow",
    "SegmentSampler",
    "SlidingWindows",
    "SpeedSampler",
    "TupleSampler",
    "TwoRateSampler",
]
