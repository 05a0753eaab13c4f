"""What the samples and steps of a run cost on its own data and machine, and what would help."""

from vclr_lightning.bench.benchmark import Bench, bench
from vclr_lightning.bench.parts import Parts, parts_of

__all__ = ["Bench", "Parts", "bench", "parts_of"]
