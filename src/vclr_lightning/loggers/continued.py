"""Which run of a tracking service a folder logs to, and up to which step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from vclr_lightning.core.files import replacing


class RunMarks:
    """Files in a run's folder that say which run of a service continues, and after which step.

    A service that cannot be cut back to a checkpoint keeps the rows of the steps that are repeated
    after a kill; as they are repeated bit for bit, they need not be sent again.

    Args:
        folder: of the run.
        service: beginning of the files' names, ``SERVICE_id`` and ``SERVICE_step``.

    Example:
        >>> import tempfile
        >>> marks = RunMarks(tempfile.mkdtemp(), "tracker")
        >>> marks.run_id is None, marks.certain
        (True, -1)
        >>> marks.run_id = "4f2a"
        >>> marks.reached(7)
        >>> marks.run_id, marks.certain
        ('4f2a', 6)
    """

    def __init__(self, folder: str | Path, service: str) -> None:
        self.folder = Path(folder)
        self._id = self.folder / f"{service}_id"
        self._step = self.folder / f"{service}_step"

    @property
    def run_id(self) -> str | None:
        """The service's name for the run; ``None`` before it has one, or where it is damaged."""
        known = self._id.read_bytes() if self._id.exists() else b""
        text = known.strip().decode(errors="replace")
        return text if re.fullmatch(r"[\w.-]{1,128}", text) else None

    @run_id.setter
    def run_id(self, value: str) -> None:
        with replacing(self._id) as sink:
            sink.write(f"{value}\n".encode())

    @property
    def certain(self) -> int:
        """The last step whose row the service certainly has; -1 for none.

        A row is whole when the next one begins, so after a kill the last one may be missing.
        """
        text = self._step.read_bytes() if self._step.exists() else b""
        return int(text) - 1 if text.isdigit() else -1

    def reached(self, step: int) -> None:
        """Note that a row of ``step`` was sent."""
        self._step.write_text(str(step))


def tag_list(tags: Sequence[str] | str | None) -> list[str]:
    """Return tags given as a list, or as a line quoted like a shell's.

    Example:
        >>> tag_list("num_segments=5 'name=my run'"), tag_list(None)
        (['num_segments=5', 'name=my run'], [])
    """
    return shlex.split(tags) if isinstance(tags, str) else list(tags or ())
