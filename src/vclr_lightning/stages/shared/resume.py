"""The checkpoint that a run starts from, and whether it belongs to this run."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.callbacks.checkpoint import LAST
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import RUN_LOCK
from vclr_lightning.core.overrides import shell_override
from vclr_lightning.core.saved import load_dict
from vclr_lightning.models.run_record import checkpoint_config, config_value
from vclr_lightning.stages.shared.run_config import differences, is_below

logger = logging.getLogger(__name__)

ROUNDING = (
    *("trainer.threads", "trainer.accelerator", "trainer.benchmark", "data.augment"),
    *("module.channels_last", "module.compile"),
)
"""Keys that may differ, but change how sums are rounded, so that bits differ from there on."""

_SHOWN = 3


def choose_start(directory: Path, *, resume: str, ckpt: str | Path | None) -> Path | None:
    """Return the checkpoint that a run continues from; ``None`` where it starts at step 0.

    Its own last one comes first: the same command continues, even one that began with ``ckpt``.

    Raises:
        UserError: ``resume`` is unknown, or ``ckpt`` does not exist.
    """
    if resume not in ("auto", "never"):
        raise UserError(f"resume={resume} must be auto or never")
    last = directory / LAST
    if resume == "auto" and last.exists():
        return last
    if ckpt is not None and not Path(ckpt).is_file():
        raise UserError(f"there is no checkpoint ckpt={ckpt}; check the path")
    return Path(ckpt) if ckpt is not None else None


def set_aside(directory: Path) -> Path | None:
    """Move the run in a folder, if any, to the next free ``NAME.1``, ``NAME.2``.

    Hydra's own files, written for this start, stay. The log so far goes with the old run; its file,
    which this run writes to already, is emptied.
    """
    if not (directory / LAST).exists():
        return None
    number = 1
    while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    aside.mkdir(parents=True)
    for entry in sorted(directory.iterdir()):
        if entry.name == RUN_LOCK:
            continue
        if entry.is_file() and entry.suffix != ".log":
            entry.rename(aside / entry.name)
        elif entry.is_file():
            shutil.copy2(entry, aside / entry.name)
            os.truncate(entry, 0)
        elif entry.name in ("wandb", "tensorboard"):
            entry.rename(aside / entry.name)
    return aside


def check_same_run(
    checkpoint: Path,
    *,
    config: Mapping[str, Any],
    given: Collection[str] | None = None,
    derived: Collection[str] = (),
) -> None:
    """Refuse to continue with values other than those of the checkpoint.

    Args:
        checkpoint: the file.
        config: of this run.
        given: keys in the command, where known; see
            :func:`~vclr_lightning.stages.shared.run_config.differences`.
        derived: keys computed from others, which are reported instead.

    Raises:
        UserError: something that training depends on differs, or the file is no checkpoint.
    """
    saved = checkpoint_config(load_dict(checkpoint, mapped=True), checkpoint)
    if not saved:
        raise UserError(
            f"{checkpoint} is no checkpoint of a run of this package; to start from its weights"
            f" give {shell_override('init', checkpoint)}"
        )
    was, now = (config_value(node, "stage.name") for node in (saved, config))
    if was != now:
        raise UserError(
            f"{checkpoint} is of stage={was}, which stage={now} does not continue; to "
            f"start from its weights give {shell_override('init', checkpoint)}"
        )
    found = sorted(differences(saved, config, given), key=lambda d: (d[0].count("."), d[0]))
    rounding = [d for d in found if any(is_below(d[0], key) for key in ROUNDING)]
    for key, was, now in rounding if is_rank_zero() else ():
        logger.info(
            "%s=%s (was %s): numbers may be rounded differently from here on, so the result need"
            " not be bit-equal to that of an uninterrupted run",
            *(key, now, was),
        )
    found = [d for d in found if d not in rounding]
    set_by_hand = [d for d in found if not any(is_below(d[0], key) for key in derived)]
    if found := set_by_hand or found:
        named = ", ".join(f"{key}={was} (now {now})" for key, was, now in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UserError(
            f"{checkpoint} was made with {named}{more}: give the same values to continue, another"
            " name=... for a new run, or resume=never to set that run aside"
        )
