"""Checkpoint files that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name, in place of ``target``; a copy where links don't work."""
    beside = target.with_name(target.name + ".link")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
        os.replace(beside, target)
    except OSError:
        with replacing(target) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically and loads plain content only (``weights_only=True``).

    Give it to any ``Trainer(plugins=[AtomicCheckpointIO()])``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all.

        Raises:
            UserError: it cannot be written; what was there before is intact.
        """
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's own, for a write that failed
            if not isinstance(error.__context__, OSError):
                raise
            reason = error.__context__.strerror
            raise UserError(f"cannot write {path}: {reason}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load ``path`` onto the CPU; see :func:`load_plain`."""
        return load_plain(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete ``path``."""
        Path(path).unlink(missing_ok=True)


def load_plain(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Load a checkpoint of plain tensors, numbers and strings onto the CPU.

    With ``mapped``, tensors are read from the file only where they are used.

    Raises:
        UserError: the file is missing, damaged, or no such checkpoint.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; check the path")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise UserError(
            f"{path} is damaged or not a checkpoint of plain tensors ({type(error).__name__});"
            " give another file"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no checkpoint but a {type(loaded).__name__}")
    return loaded
