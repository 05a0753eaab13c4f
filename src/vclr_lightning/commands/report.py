"""Write a page about one run, or about several side by side.

Reads what the runs left in their folders: metrics.csv, config.yaml, result.json, train.log and,
where they evaluated their features, results.json. A folder of runs, such as a sweep's, stands for
all of them. The page shows the state of each run (also one that is running, stopped or failed, and
why), what it measured, mean and spread over seeds, how the configurations differ, all curves, and
evaluations of the runs' weights.

  vclr report outputs/pretrain/k400
  vclr report outputs/pretrain/sweep
  vclr report outputs/demo/a outputs/demo/b outputs/demo/c --out seeds.html
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vclr_lightning.stages.shared.run_folder import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vclr report``."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, or of several runs"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="page to write (default: curves.html in RUN)"
    )
    parser.add_argument("--title", help="of the page")


def run(args: argparse.Namespace) -> None:
    """Write the page, and print its tables."""
    from vclr_lightning.results import present
    from vclr_lightning.stages.shared.run_report import result_of_runs

    out = args.out or args.runs[0] / "curves.html"
    found = [one for folder in args.runs for one in _runs(folder)]
    runs = _told_apart(list({one.folder.resolve(): one for one in found}.values()))
    present(result_of_runs(runs, title=args.title, page=out), out.parent)


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Put the folders above before a name that several runs have, as jobs of two sweeps do."""
    from dataclasses import replace

    named, depth = list(runs), 1
    while depth < max((len(run.folder.resolve().parts) for run in named), default=0):
        times, depth = Counter(run.name for run in named), depth + 1
        if max(times.values()) == 1:
            break
        named = [
            replace(run, name="/".join(run.folder.resolve().parts[-depth:]))
            if times[run.name] > 1
            else run
            for run in named
        ]
    return named


def _runs(folder: Path) -> list[Run]:
    """Read a run, or all runs below a folder; what cannot be read of several is no error."""
    from dataclasses import replace

    from vclr_lightning.app.sweep_table import read_jobs
    from vclr_lightning.core.errors import UserError
    from vclr_lightning.stages.shared.run_folder import Run, find_runs, read_run

    folders = find_runs(folder)
    if folders == [folder]:
        return [read_run(folder)]
    failed = {Path(job.folder).name: job for job in read_jobs(folder) if job.status == "failed"}
    found = []
    for one in dict.fromkeys([*folders, *(folder / name for name in failed)]):
        job = failed.get(one.name)
        try:
            known = read_run(one)
        except UserError as error:
            known = Run(one.name, folder=one, status="unreadable", reason=str(error))
        if job is not None and known.status != "running":
            known = replace(known, status="failed", reason=job.reason)
        found.append(known)
    return found
