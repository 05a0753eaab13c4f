"""What preparing a data set came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.data.indexing.rejects import failed_lines

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.data.indexing.entries import Rejected
    from vclr_lightning.data.indexing.journal import Outcome
    from vclr_lightning.data.manifest import Manifest
    from vclr_lightning.data.prepare.read_cost import ReadCost
    from vclr_lightning.data.prepare.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared data set.

    Attributes:
        manifest: of the result.
        recipe: how it was encoded.
        failed: what could not be, as listed in ``failed_file``.
        failed_file: where it is listed, which exists if there is any.
        earlier: files that an earlier run had done.
        made: of each file that was re-encoded, when it was: source and result.
        cost: what reading costs before and after, where it was measured.
    """

    manifest: Manifest
    recipe: Recipe
    failed: Sequence[Rejected]
    failed_file: Path
    earlier: int
    made: Sequence[Outcome]
    cost: ReadCost | None

    @cached_property
    def bytes_before(self) -> int:
        """Bytes of the sources that were re-encoded."""
        return sum(outcome.size for outcome in self.made)

    @cached_property
    def bytes_after(self) -> int:
        """Bytes of the new files."""
        return sum(int(o.values["size"]) for o in self.made if o.values is not None)

    @property
    def done(self) -> int:
        """How many files are re-encoded."""
        return len(self.made)

    @property
    def kept_size(self) -> int:
        """Files below the short edge, which were not enlarged."""
        values = (o.values for o in self.made if o.values is not None)
        return sum(self.recipe.enlarges_nothing(v["width"], v["height"]) for v in values)

    def table(self) -> Table:
        """Return the figures, for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"prepared: {self.recipe.describe()}", title_justify="left")
        table.add_column("")
        for title in ("before", "after", "ratio"):
            table.add_column(title, justify="right")
        table.add_row("files", f"{len(self.made) + len(self.failed):,}", f"{len(self.made):,}", "")
        before, after = self.bytes_before, self.bytes_after
        table.add_row("bytes", _bytes(before), _bytes(after), f"{after / max(before, 1):.2f} x")
        if self.cost is not None:
            cost = self.cost
            table.add_row(
                f"3 + 3 frames read, median of {cost.videos}",
                f"{1e3 * cost.before:.1f} ms",
                f"{1e3 * cost.after:.1f} ms",
                f"1 / {cost.before / cost.after:.1f}",
            )
        return table

    def notices(self) -> list[str]:
        """Return lines on what was done before, kept its size, or failed."""
        lines = []
        if self.earlier:
            lines.append(f"{self.earlier:,} were done by an earlier run")
        if self.kept_size:
            lines.append(
                f"{self.kept_size:,} are smaller than {self.recipe.short_edge} pixels and keep "
                "their size"
            )
        return [*lines, *failed_lines(self.failed, self.failed_file)]


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
