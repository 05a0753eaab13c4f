"""Which frames of a video make its views."""

from vclr_lightning.data.sampling.segment_sampler import SegmentSampler
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler

__all__ = ["SegmentSampler", "TupleSampler"]
