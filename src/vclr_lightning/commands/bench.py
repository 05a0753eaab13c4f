"""Measure where the time of a training run goes, on your videos and this machine.

Takes the overrides of `python -m vclr_lightning.train` and measures the run that they describe:
samples as a data worker makes them, training steps, both together, and what would help: re-encoding
(a few videos, into a temporary folder), and other ways to augment. Leaves no run; the index of the
videos, which training keeps in its cache, stays.
Options come before the overrides or after them.

  vclr bench data.root=/videos batch_size=64
  vclr bench --seconds 120 --out bench.json +experiment=k400 data.root=/k400 init=none
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from vclr_lightning.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr bench``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of the run, as training takes them"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="N",
        help="to measure for, roughly (default: 60)",
    )
    parser.add_argument(
        "--variants",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure what would help, too",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON to a file")
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="your own options, as in training"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, and print the tables and the advice."""
    from vclr_lightning.app.benchmarking import benchmark
    from vclr_lightning.core.files import replacing
    from vclr_lightning.core.screen import screen, show, wrote

    if not args.seconds >= 1:
        raise UserError(f"--seconds {args.seconds:g} must be 1 or more")
    if args.out is not None and not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.absolute().parent}")
    if args.out is not None and args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; give a file")
    if os.getcwd() not in sys.path:  # where `python -m` finds the classes of a project
        sys.path.insert(0, os.getcwd())
    found = benchmark(
        args.overrides, config_dir=args.config_dir, seconds=args.seconds, variants=args.variants
    )
    text = json.dumps({"overrides": args.overrides, **found.as_dict()}, indent=1)
    if args.json:
        print(text)
    else:
        show(*found.tables())
        screen().print(*found.notices(), "", found.advice.text, sep="\n")
        show(*(f"  {line}" for line in found.advice.lines))
    if args.out is not None:
        with replacing(args.out) as sink:
            sink.write(f"{text}\n".encode())
        if not args.json:
            wrote(args.out)
