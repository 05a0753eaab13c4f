"""``python -m vclr_lightning.study``: run a study, continue it, show what it found.

  python -m vclr_lightning.study list
  python -m vclr_lightning.study losses
  python -m vclr_lightning.study losses launcher=parallel hydra.launcher.n_jobs=4 trainer.threads=1
  python -m vclr_lightning.study losses scale=paper paths.k400=/k400 paths.moco=/moco_v2.pth.tar
  python -m vclr_lightning.study segments data.root=/folder/of/videos seeds=0,1 --commands
  python -m vclr_lightning.study all

A study compares its arms over several seeds, all else equal. What is done is skipped, what stopped
continues, and table and plot are written again: outputs/study/NAME/SCALE/study.html.

  scale=small|paper     two cores and an hour, or the paper's data and GPUs
  seeds=0,1,2  arms=A,B of those of the study
  launcher=parallel|slurm  several runs at a time, here or on a cluster; hydra.launcher.KEY=VALUE
  paths.NAME=PATH       what a study needs
  KEY=VALUE             any other words go to each training command, trainer's to all commands
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vclr_lightning.app.ending import run_reported
from vclr_lightning.app.studies import SCALES, Study, state, study, study_files
from vclr_lightning.core.errors import UserError

ALL = "all"
_LAUNCHERS = ("basic", "parallel", "slurm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0, 1 (fault of code), 2 (user's mistake, or a run failed), or 128 + signal."""
    parser = argparse.ArgumentParser(
        prog="python -m vclr_lightning.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", nargs="?", default="list", help="of the study, all, or list (default)"
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--commands", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--results", action="store_true", help="write table and plot, run nothing")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write the results there, too")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your options and studies")
    parsed = parser.parse_intermixed_args(arguments)
    # HYDRA_FULL_ERROR is changed later; runs read the user's choice here.
    os.environ.setdefault("VCLR_TRACEBACKS", os.environ.get("HYDRA_FULL_ERROR", "0"))
    return run_reported(lambda: _run(parsed))


def _run(parsed: argparse.Namespace) -> int:
    folder: Path | None = parsed.config_dir
    if parsed.name == "list":
        print(_listed(folder))
        return 0
    own, hydra, given = _sorted(parsed.words)
    chosen = _chosen(parsed.name, own, folder)
    words = list(given)
    if folder is not None:
        given.append(f"hydra.searchpath=[file://{folder.absolute()}]")
    if missing := sorted(set().union(*(one.missing() for one in chosen))):
        needed = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"give {needed}, which {parsed.name} takes at this scale")
    if parsed.commands:
        for one in chosen:
            for command in itertools.chain(*(one.commands(*cell, given) for cell in one.cells())):
                line = shlex.join([*command.words, f"run_dir={command.folder}"])
                print("python -m vclr_lightning.train", line)
        return 0
    from vclr_lightning.app.study_jobs import launch
    from vclr_lightning.app.study_record import record_study
    from vclr_lightning.app.study_results import show_study

    failed = 0
    for one in chosen:
        if not parsed.results:
            launch(one, given, hydra)
        failed += show_study(one)
        if parsed.record is not None:
            place = parsed.record / one.name if parsed.name == ALL else parsed.record
            record_study(one, words, place, options=folder)
    return 2 if failed else 0


def _chosen(name: str, own: dict[str, str], folder: Path | None) -> list[Study]:
    """Return the study of a name, or all of them, last those that take networks of others."""
    scale = own.pop("scale", SCALES[0])
    if name != ALL:
        return [study(name, scale, own, folder=folder)]
    known = {one: study(one, scale, folder=folder).paths for one in study_files(folder)}
    takes = {one: {"seeds", *(f"paths.{path}" for path in paths)} for one, paths in known.items()}
    if wrong := sorted(own.keys() - set().union(*takes.values())):
        raise UserError(f"not every study can take {wrong[0]}=; give it to one of them")
    later = {one: any("outputs/study/" in (p or "") for p in known[one].values()) for one in known}
    return [
        study(one, scale, {k: v for k, v in own.items() if k in takes[one]}, folder=folder)
        for one in sorted(known, key=lambda one: later[one])
    ]


def _sorted(words: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the words of the study itself, those of Hydra and those of its commands.

    Example:
        >>> _sorted(["seeds=0,1", "launcher=slurm", "hydra.launcher.partition=gpu", "epochs=2"])
        ({'seeds': '0,1'}, ['+sweep=slurm', 'hydra.launcher.partition=gpu'], ['epochs=2'])
    """
    own, hydra, given = {}, [], []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word} must be KEY=VALUE")
        if key == "launcher":
            if value not in _LAUNCHERS:
                raise UserError(f"launcher={value} must be one of: {', '.join(_LAUNCHERS)}")
            hydra += [f"+sweep={value}"] if value != "basic" else []
        elif key.startswith(("hydra.", "hydra/")):
            hydra.append(word)
        elif key in ("scale", "seeds", "arms") or key.startswith("paths."):
            own[key] = value
        else:
            given.append(word)
    return own, hydra, given


def _listed(folder: Path | None) -> str:
    """Return a line for each study: what it repeats, and how many of its runs are done."""
    lines = [f"{'study':<12} {'repeats':<18} {'small scale':<22} paper's scale"]
    for name in study_files(folder):
        scales = {scale: _state(study(name, scale, folder=folder)) for scale in SCALES}
        about = study(name, folder=folder).paper
        lines.append(f"{name:<12} {about:<18} {scales['small']:<22} {scales['paper']}")
    return "\n".join(lines)


def _state(one: Study) -> str:
    states = [state(one.cell_folder(arm, seed)) for arm, seed in one.cells()]
    if not any(states):
        recorded = Path("experiments", one.name, f"{one.scale}.json").is_file()
        return "recorded" if recorded else "not run"
    failed = f", {states.count('failed')} failed" if "failed" in states else ""
    return f"{states.count('done')} of {len(states)} done{failed}"


if __name__ == "__main__":
    sys.exit(main())
