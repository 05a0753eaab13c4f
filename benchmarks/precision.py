"""A training step in bfloat16 against float32 on this processor, one core.

    python -m benchmarks.precision

The network, batch and image size are those of `+experiment=small`; forward, backward, SGD, momentum
encoder and queues. `trainer.precision=auto` takes bfloat16 where the processor has AMX, and only
there this has a target.
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch

from benchmarks.timing import compare, report
from benchmarks.train_step import OurStep, make_batch, make_module
from vclr_lightning.models import TinyBackbone
from vclr_lightning.stages.shared.hardware import fastest_precision

FLOAT, HALF = "float32", "bfloat16"


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status: 1 where a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="steps that count")
    parser.add_argument("--width", type=int, nargs="+", default=[16, 32], help="of TinyBackbone")
    parser.add_argument("--least", type=float, default=1.2, help="ratio to reach with AMX")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    amx = fastest_precision("cpu") == "bf16-mixed"
    batches = [make_batch(16, 64, seed) for seed in range(2)]
    comparisons = {}
    for width in arguments.width:
        torch.manual_seed(0)
        module = make_module(TinyBackbone(width=width), 80, channels_last=True)
        steps = {FLOAT: OurStep(module), HALF: OurStep(copy.deepcopy(module))}

        def run(case: str, number: int, steps: dict[str, OurStep] = steps) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=case == HALF):
                steps[case](batches[number % 2], max(number, 0))

        comparisons[f"training step, TinyBackbone of width {width}, AMX: {amx}"] = compare(
            {case: lambda number, case=case, run=run: run(case, number) for case in steps},
            baseline=FLOAT,
            repeats=arguments.repeats,
            targets={HALF: arguments.least} if amx else {},
            label=f"width {width}",
        )
    return report(comparisons)


if __name__ == "__main__":
    sys.exit(main())
