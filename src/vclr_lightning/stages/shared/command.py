"""A stage run by a command of its own, as a user would type it."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.launcher import VARIABLES
from vclr_lightning.core.overrides import hydra_value
from vclr_lightning.core.processes import run_command
from vclr_lightning.core.reading import read_numbers, read_record, write_record
from vclr_lightning.results import Result

logger = logging.getLogger(__name__)

_RECORD = "command.json"
# This run's own: it and the command are two runs of W&B.
_WANDB = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SERVICE")
_PLUS = ("experiment", "preset", "profiler", "suite")


class Command:
    """Runs ``python -m vclr_lightning.train`` with given choices, and returns its results.

    The stage has its own processes, log and checkpoints: if stopped, it continues when it is run
    again.

    Args:
        choose: options of groups, by group.
        set: values, by key; keys may be nested.
        given: further arguments as on a command line, or that line. Their groups win over those of
            ``choose``, values of ``set`` over theirs.
        changes: values that replace those of ``set``.

    Example:
        >>> command = Command(
        ...     choose={"experiment": "ucf101_finetune"},
        ...     set={"init": "/my runs/last.ckpt", "optim": {"base_lr": 0.1}},
        ...     given=["trainer.devices=2"],
        ... )
        >>> print(*command.arguments("out"), sep="\\n")
        +experiment=ucf101_finetune
        trainer.devices=2
        init='/my runs/last.ckpt'
        optim.base_lr=0.1
        run_dir=out
    """

    def __init__(
        self,
        *,
        choose: Mapping[str, str],
        set: Mapping[str, Any],
        given: Sequence[str] | str = (),
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self._choices = dict(choose)
        self._values = dict(_leaves(set)) | dict(_leaves(changes or {}))
        self._given = shlex.split(given) if isinstance(given, str) else list(given)

    def arguments(self, directory: str | Path) -> list[str]:
        """Return the command's arguments, for a run in ``directory``."""
        named = {word.partition("=")[0] for word in self._given}
        choices = [
            f"{'+' if group in _PLUS else ''}{group}={option}"
            for group, option in self._choices.items()
            if group not in named
        ]
        values = [f"{key}={hydra_value(value)}" for key, value in self._values.items()]
        return [*choices, *self._given, *values, f"run_dir={hydra_value(str(directory))}"]

    def __call__(self, *, directory: str | Path) -> Result:
        """Run or continue the command in the folder ``directory``.

        Raises:
            UserError: it failed, with its reason; or the folder has a run of files that have
                changed.
        """
        directory = Path(directory)
        record, files = directory / _RECORD, dict(self._files())
        # Stages that train nothing always start over.
        continues = self._values.get("resume", "never") != "never"
        if continues and record.is_file() and (old := read_record(record) or files) != files:
            changed = [path for path in files if files[path] != old.get(path)] or list(old)
            raise UserError(
                f"{directory} holds a run of other content of "
                f"{changed[0] if changed else 'its files'}; give another name=, or resume=never to "
                "run it from the start"
            )
        arguments = self.arguments(directory)
        logger.info("python -m vclr_lightning.train %s", shlex.join(arguments))
        if continues:
            write_record(record, files)
        run_command(
            [sys.executable, "-m", "vclr_lightning.train", *arguments],
            without=(*VARIABLES, *_WANDB),
        )
        write_record(record, files)  # the earlier one may have been set aside with its run
        numbers = read_numbers(directory / "result.json")
        return Result(title="", numbers=numbers, notes=_notes(directory))

    def _files(self) -> Iterator[tuple[str, list[int]]]:
        """Size and time of every file in the arguments, which reveal a change."""
        given = (word.partition("=")[2].strip("'\"") for word in self._given)
        for value in [*_strings(list(self._values.values())), *given]:
            if value and Path(value).is_file():
                status = Path(value).stat()
                yield value, [status.st_size, status.st_mtime_ns]


def _notes(directory: Path) -> list[str]:
    """Notes on the results in the stage's own files."""
    found: list[str] = []
    for file in sorted(directory.glob("*.json")):
        notes = (read_record(file) or {}).get("notes")
        found += map(str, notes if isinstance(notes, list) else ())
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
