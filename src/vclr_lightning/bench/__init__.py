"""Measure loader and training step of a run on its own data and machine, and what would help."""

from vclr_lightning.bench.measure import bench
from vclr_lightning.bench.parts import Parts, parts_of
from vclr_lightning.bench.result import Bench

__all__ = ["Bench", "Parts", "bench", "parts_of"]
