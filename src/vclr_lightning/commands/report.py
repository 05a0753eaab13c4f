"""Write a page about one run, or about several side by side.

Reads what the runs left in their folders: metrics.csv, config.yaml and, where they evaluated their
features, results.json. Runs that differ by their seed share one table with its spread.

  vclr report outputs/pretrain/k400
  vclr report outputs/demo/a outputs/demo/b outputs/demo/c --out seeds.html
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr report``."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="page to write (default: curves.html in RUN)"
    )
    parser.add_argument("--title", help="of the page")


def run(args: argparse.Namespace) -> None:
    """Write the page, and print the table if there is one."""
    from dataclasses import replace

    from vclr_lightning.results import present
    from vclr_lightning.stages.shared.run_report import read_run, result_of_runs

    out = args.out or args.runs[0] / "curves.html"
    result = result_of_runs([read_run(folder) for folder in args.runs], title=args.title)
    present(replace(result, page=out.name), out.parent)
