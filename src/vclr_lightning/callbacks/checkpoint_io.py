"""Checkpoint files that are whole or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from vclr_lightning.core.errors import UserError

TEMPORARY = ".partial"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a neighbour of ``path``, then put it in place in one step.

    Whatever happens (kill, power, full disk), ``path`` holds the old content or the new one.

    Raises:
        UserError: the disk is full, or a quota reached; ``path`` keeps its old content.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", lambda p: p.write_text("whole"))
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + TEMPORARY)
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        replace_durably(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if _disk_full(error):
            kept = "the one before it is intact" if path.exists() else "nothing was overwritten"
            raise UserError(
                f"no space left to write {path}; {kept}: free some space on its disk and give the"
                " same command again"
            ) from error
        raise


def replace_durably(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target`` in one step that a power cut cannot undo."""
    os.replace(source, target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name, or copy it where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _disk_full(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically and loads plain content only (``weights_only=True``).

    Give it to any ``Trainer(plugins=[AtomicCheckpointIO()])``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``; see :func:`write_atomically`."""

        def write(partial: Path) -> None:
            # An open file, so that a full disk is an OSError and not torch's own.
            with partial.open("wb") as file:
                torch.save(checkpoint, file)

        write_atomically(Path(path), write)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load ``path`` onto the CPU; see :func:`load_plain`."""
        return load_plain(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete ``path``."""
        Path(path).unlink(missing_ok=True)


def load_plain(path: Path) -> dict[str, Any]:
    """Load a checkpoint of plain tensors, numbers and strings onto the CPU.

    Raises:
        UserError: the file is missing, damaged, or no such checkpoint.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; check the path")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is damaged or not a checkpoint of plain tensors ({type(error).__name__});"
            " give another file"
        ) from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no checkpoint but a {type(loaded).__name__}")
    return loaded
