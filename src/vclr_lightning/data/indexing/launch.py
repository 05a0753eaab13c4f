"""Of the ranks of a launch, one looks for the videos; the others take what it found."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.data.manifest import Manifest

_LAUNCH = "VCLR_LAUNCH"  # inherited by the ranks that a first one starts
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def once_a_launch(out: Path, look: Callable[[bool], Manifest], *, show: bool) -> Manifest:
    """Return the manifest ``out``, for which one rank alone calls ``look``.

    The first to come looks, the others wait for it; should it fail or die, the next one looks. The
    ranks meet in the folder of ``out``: on machines that do not share it, one on each looks.

    Args:
        out: the manifest's file.
        look: writes it, given whether to show progress, and returns it.
        show: whether this rank shows progress. Of those that a launcher started, whichever looks
            does.

    Raises:
        UserError: ``look`` fails, or the folder cannot be written to.
    """
    launched = _launched()
    launch = launched or os.environ.setdefault(_LAUNCH, uuid.uuid4().hex)
    follows = launched or os.environ.get("LOCAL_RANK", "0") != "0"
    note = out.with_suffix(".looked")
    with locked(Path(f"{out}.ranks"), show=show):
        manifest = _found(out, note, launch) if follows else None
        if manifest is None:
            manifest = look(show or bool(launched))
            write_record(note, {"launch": launch, "fingerprint": manifest.fingerprint})
    return manifest


def _found(out: Path, note: Path, launch: str) -> Manifest | None:
    """What another rank of this launch found, if that is still there."""
    looked = read_record(note) or {}
    try:
        manifest = Manifest.load(out) if looked.get("launch") == launch else None
    except UserError:
        return None
    same = manifest is not None and manifest.fingerprint == looked.get("fingerprint")
    return manifest if same else None


def _launched() -> str:
    """Name what the ranks have in common that a launcher started; nothing where none did."""
    env = os.environ
    if any(name in env for name in _LAUNCHERS):
        again = env.get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"{socket.gethostname()} {_process(os.getppid())} {again}"
    if "SLURM_STEP_ID" in env and env.get("SLURM_NTASKS", "1") != "1":
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm " + " ".join(env.get(name, "0") for name in names)
    return ""


def _process(number: int) -> str:
    """A process by its number and, as numbers come back, the time of its start."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return str(number)
    return f"{number} {stat.rpartition(')')[2].split()[19]}"
