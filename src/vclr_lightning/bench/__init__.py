"""What the samples and steps of a run cost on its own data and machine, and what would help."""

from vclr_lightning.bench.benchmark import Bench, bench
from vclr_lightning.bench.parts import Parts, parts_of
from vclr_lightning.bench.planning import plan
from vclr_lightning.bench.run_plan import Length, Plan

__all__ = ["Bench", "Length", "Parts", "Plan", "bench", "parts_of", "plan"]
