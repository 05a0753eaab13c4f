"""What storing a data set in shards came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.data.indexing.rejects import failed_lines

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.data.indexing.entries import Rejected
    from vclr_lightning.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A data set in shards.

    Attributes:
        manifest: of the result.
        shards: how many there are.
        files: videos in them.
        bytes_before: of these files.
        bytes_after: of the shards.
        earlier: shards that an earlier run had written.
        failed: what could not be stored, as listed in ``failed_file``.
        failed_file: where it is listed, which exists if there is any.
    """

    manifest: Manifest
    shards: int
    files: int
    bytes_before: int
    bytes_after: int
    earlier: int
    failed: Sequence[Rejected]
    failed_file: Path

    @property
    def done(self) -> int:
        """How many files are stored."""
        return self.files

    def table(self) -> Table:
        """Return the figures, for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"shards in {self.manifest.root}", title_justify="left")
        for title in ("", "files", "bytes"):
            table.add_column(title, justify="right" if title else "left")
        table.add_row("videos", f"{self.files:,}", f"{self.bytes_before:,}")
        table.add_row("shards", f"{self.shards:,}", f"{self.bytes_after:,}")
        return table

    def notices(self) -> list[str]:
        """Return lines on what was done before, or failed."""
        lines = []
        if self.earlier:
            lines.append(f"{self.earlier:,} shards were written by an earlier run")
        return [*lines, *failed_lines(self.failed, self.failed_file)]
