"""What a run starts from, and whether a checkpoint belongs to this run."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vclr_lightning.callbacks.checkpoint import LAST
from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import RUN_LOCK
from vclr_lightning.core.overrides import typed
from vclr_lightning.core.saved import load_dict
from vclr_lightning.models.network_spec import upgrade_spec
from vclr_lightning.stages.shared.adopt import config_of, saved_value

logger = logging.getLogger(__name__)

# What may differ between a checkpoint and the run that continues it: where things are, how fast
# they are loaded, what is shown. The videos themselves are compared by their fingerprint.
FREE = (
    "name",
    "run_dir",
    "resume",
    "ckpt",
    "init",
    "monitor",
    "logger",
    "callbacks",
    "stage.run",
    "suite",  # what follows training
    "untrimmed",
    "module.init_std",  # of the start alone
    "test",
    "annotations",  # of localisation: features and spans are compared by their hash
    "snippets.folder",
    "data.root",
    "data.manifest",
    "data.train_list",
    "data.val_list",
    "data.kinetics",
    "data.cache_dir",
    "data.decode",
    "data.group_regex",
    "data.frames",
    "data.reader",
    "data.num_workers",
    "data.start_method",
    "data.prefetch_factor",
    "data.timeout",
    "data.pin_memory",
    "data.max_rejected_share",
    "data.eval_batch_size",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.num_nodes",
    "trainer.devices",
    "trainer.timeout",
)
# These may differ too, but sums are rounded otherwise, so that bits differ from there on.
ROUNDING = ("trainer.threads", "trainer.accelerator", "data.augment")
_SHOWN = 3


@dataclass(frozen=True)
class Start:
    """Where a run begins: at a checkpoint, or with step 0 where there is none.

    Attributes:
        checkpoint: the file to continue from.
        own: whether it is the run's own.
    """

    checkpoint: Path | None
    own: bool


def choose_start(directory: Path, *, resume: str, ckpt: str | Path | None) -> Start:
    """Return the checkpoint that a run continues from, if any.

    Its own last one comes first: the same command continues, also one that began with ``ckpt``.

    Raises:
        UserError: ``resume`` is unknown, or ``ckpt`` does not exist.
    """
    if resume not in ("auto", "never"):
        raise UserError(f"resume={resume} must be auto or never")
    last = directory / LAST
    if resume == "auto" and last.exists():
        return Start(last, own=True)
    if ckpt is not None and not Path(ckpt).is_file():
        raise UserError(f"there is no checkpoint ckpt={ckpt}; check the path")
    return Start(Path(ckpt) if ckpt is not None else None, own=False)


def set_aside(directory: Path) -> Path | None:
    """Rename a run's folder to the next free ``NAME.1``, ``NAME.2``, where it holds a run.

    Hydra's own files, which it wrote for this start, stay. The log so far goes with the old
    run; its file, which this one writes to already, begins anew.
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
        elif entry.name == "wandb":
            entry.rename(aside / entry.name)
    return aside


def check_same_run(
    checkpoint: Path,
    *,
    config: Mapping[str, Any],
    given: Collection[str] | None = None,
    derived: Collection[str] = (),
) -> None:
    """Refuse to continue with other values than those a checkpoint was made with.

    Args:
        checkpoint: the file.
        config: of this run.
        given: keys that the command gives, where that is known; see :func:`differences`.
        derived: keys whose values come from others', which are told instead.

    Raises:
        UserError: something that training depends on differs, or the file is no checkpoint.
    """
    saved = config_of(load_dict(checkpoint, mapped=True), checkpoint)
    if not saved:
        raise UserError(
            f"{checkpoint} is no checkpoint of a run of this package; to start from its weights"
            f" give {typed('init', checkpoint)}"
        )
    stages = [saved_value(node, "stage.name") for node in (saved, config)]
    if stages[0] != stages[1]:
        raise UserError(
            f"{checkpoint} is of stage={stages[0]}, which stage={stages[1]} does not continue; to "
            f"start from its weights give {typed('init', checkpoint)}"
        )
    found = sorted(differences(saved, config, given), key=lambda d: (d[0].count("."), d[0]))
    for key, was, now in (d for d in found if d[0] in ROUNDING and is_rank_zero()):
        logger.info(
            "%s=%s (was %s): numbers may be rounded otherwise from here on, so the result need not"
            " be bit-equal to that of a run that was never stopped",
            *(key, now, was),
        )
    found = [d for d in found if d[0] not in ROUNDING]
    set_by_hand = [d for d in found if not any(_is_below(d[0], key) for key in derived)]
    if found := set_by_hand or found:
        named = ", ".join(f"{key}={was} (now {now})" for key, was, now in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UserError(
            f"{checkpoint} was made with {named}{more}: give the same values to continue, another"
            " name=... for a new run, or resume=never to set that run aside"
        )


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str] | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Yield ``(key, saved value, present value)`` of what differs and matters.

    A key that the checkpoint does not know is one of a later version, if the command (``given``)
    leaves it at its packaged value and it is one more argument of something that the checkpoint
    has; that is no difference. Without ``given`` it is one.

    Example:
        >>> list(differences({"epochs": 4, "name": "a"}, {"epochs": 5, "name": "b"}))
        [('epochs', 4, 5)]
    """
    before, after = dict(_leaves(saved)), dict(_leaves(now))
    for key in sorted(before.keys() | after.keys()):
        if any(_is_below(key, free) for free in FREE):
            continue
        if given is not None and key not in before and _added_later(key, saved, now, given):
            continue
        was, new = before.get(key), after.get(key)
        if was != new:
            yield key, was, new


def _added_later(
    key: str, saved: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str]
) -> bool:
    if any(f"{key}.".startswith(f"{g}.") or g.startswith(f"{key}.") for g in given):
        return False
    was: Any = saved
    new: Any = now
    *parents, _ = key.split(".")
    for part in parents:
        was = was.get(part) if isinstance(was, Mapping) else None
        new = new.get(part) if isinstance(new, Mapping) else None  # a key may hold a point
    if not (isinstance(was, Mapping) and isinstance(new, Mapping)):
        return False
    if was.get("_target_") != new.get("_target_"):
        return False
    # Below the objective, keys without a class are names of losses, not arguments.
    return parents[:1] != ["objective"] or "_target_" in was


def _is_below(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values by dotted key; of a list, one by one where they are more than plain ones."""
    children: Iterable[tuple[Any, Any]]
    if isinstance(node, Mapping) and node:
        children = upgrade_spec(node).items()
    elif isinstance(node, list) and any(isinstance(value, Mapping) for value in node):
        children = enumerate(node)
    else:
        yield prefix, node
        return
    for key, value in children:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
