"""The jobs of a study: one for each arm and seed, which Hydra's launchers run."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vclr_lightning.app.studies import CELL, Study, StudyCommand, state
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.overrides import hydra_value
from vclr_lightning.core.reading import read_record, write_record

logger = logging.getLogger(__name__)

PLAN = "plan.json"


def launch(study: Study, given: Sequence[str] = (), hydra: Sequence[str] = ()) -> None:
    """Run the cells of a study that are not done, as a multirun of Hydra.

    Args:
        study: to run.
        given: the user's words for its commands.
        hydra: words for Hydra itself, such as ``+sweep=slurm``.

    Raises:
        UserError: a cell has been run by other commands.
    """
    left = []
    for arm, seed in study.cells():
        folder = study.cell_folder(arm, seed)
        _check_same(folder, study.commands(arm, seed, given))
        if state(folder) != "done":
            left.append(f"{arm}/seed{seed}")
    write_record(study.folder / PLAN, {"study": asdict(study), "given": list(given)})
    if not left:
        return
    import hydra as of_hydra

    where = hydra_value(str(study.folder.absolute()))
    sys.argv = [
        *(sys.argv[0], "-m", *hydra, f"+folder={where}", f"+cell={','.join(left)}"),
        *(f"hydra.sweep.dir={where}", "hydra.sweep.subdir='${cell}'", "hydra.output_subdir=null"),
        *("hydra.job.chdir=false", "hydra/job_logging=stdout", "hydra/hydra_logging=none"),
    ]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    main = of_hydra.main(
        version_base="1.3", config_path="pkg://vclr_lightning.conf", config_name=None
    )
    main(run_cell)()


def run_cell(cfg: DictConfig) -> None:
    """Run or continue the commands of one cell, and write the study's table so far.

    A failure is recorded, and the others go on.
    """
    from vclr_lightning.app.study_results import write_study

    folder = Path(cfg.folder)
    plan: dict[str, Any] = read_record(folder / PLAN) or {}
    study = Study(**plan["study"])
    arm, _, seed = str(cfg.cell).rpartition("/seed")
    commands = study.commands(arm, int(seed), plan["given"])
    cell = study.cell_folder(arm, int(seed))
    done = (read_record(cell / CELL) or {}).get("done", [])
    content = {"commands": [asdict(one) for one in commands], "done": done, "failed": ""}
    write_record(cell / CELL, content)
    try:
        for one in commands:
            if one.folder not in done:
                logger.info("study %s, %s", study.name, one.folder)
                if one is not commands[0] or not _taken(study, one):
                    _run(one)
                done.append(one.folder)
                write_record(cell / CELL, content)
    except UserError as error:
        logger.error("%s failed: %s", cell, error)
        write_record(cell / CELL, content | {"failed": str(error)})
    write_study(study)


def _taken(study: Study, training: StudyCommand) -> bool:
    """Copy the files of the same training from another study, if one has done it."""
    goal = Path(training.folder)
    for file in sorted(study.folder.parent.parent.glob(f"*/{study.scale}/*/seed*/{CELL}")):
        record = read_record(file) or {"commands": [], "done": []}
        first = next((StudyCommand(**one) for one in record["commands"]), None)
        if first is None or first.folder not in record["done"] or file.parent == goal:
            continue
        if _training(first) == _training(training) and (file.parent / "last.ckpt").is_file():
            logger.info("the training is that of %s", file.parent)
            for one in file.parent.iterdir():
                if one.is_file() and one.name != CELL and not one.name.startswith("."):
                    shutil.copy2(one, goal / one.name)
            return True
    return False


def _training(one: StudyCommand) -> list[str]:
    """Return what a training computes: its words but the name of the run."""
    return [word for word in one.what if not word.startswith("name=")]


def _run(one: StudyCommand) -> None:
    """Run a command in its folder; a stage that trains continues there."""
    from vclr_lightning.stages.shared.command import Command

    Command(choose={}, set={"resume": "auto"}, given=one.words)(directory=one.folder)


def _check_same(folder: Path, commands: Sequence[StudyCommand]) -> None:
    """Refuse to mix results of different commands."""
    if not (record := read_record(folder / CELL)):
        return
    for old, new in zip(record["commands"], commands, strict=False):
        before = StudyCommand(**old).what
        if before != new.what:
            other = [*set(before) ^ set(new.what)]
            raise UserError(
                f"{folder} has been run with other words ({', '.join(sorted(other))}); give those, "
                "or remove the folder"
            )
