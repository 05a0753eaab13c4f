"""Take a few steps of a run, and say what all of it will take.

Takes the overrides of `python -m vclr_lightning.train`, and measures for half a minute: time of
the run and of each part of a step, peak memory, the largest batch (tried on a GPU, estimated on a
CPU), workers, disk, and whether a queue is longer than the keys of an epoch. Leaves no run; the
index of the videos, which training keeps in its cache, stays.
Options come before the overrides or after them.

  vclr plan +experiment=k400 data.root=/k400 init=none
  vclr plan --json data.root=/videos batch_size=64
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from vclr_lightning.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr plan``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of the run, as training takes them"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        metavar="N",
        help="to measure for, roughly (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own options, as in training"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, and print the plan."""
    from vclr_lightning.app.benchmarking import plan_run
    from vclr_lightning.core.screen import screen, show

    if not args.seconds >= 1:
        raise UserError(f"--seconds {args.seconds:g} must be 1 or more")
    if os.getcwd() not in sys.path:  # where `python -m` finds the classes of a project
        sys.path.insert(0, os.getcwd())
    found = plan_run(args.overrides, config_dir=args.config_dir, seconds=args.seconds)
    if args.json:
        content = {"overrides": args.overrides, **found.as_dict(), "warnings": [*found.warnings()]}
        print(json.dumps(content, indent=1))
        return
    show(found.table())
    screen().print(*(f"! {warning}" for warning in found.warnings()), sep="\n")
