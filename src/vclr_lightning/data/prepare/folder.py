"""The folder of a prepared data set: what is in it, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers
from vclr_lightning.core.reading import read_text, unsealed, write_record
from vclr_lightning.data.encoding import remove_partial
from vclr_lightning.data.indexing.ensure import PREPARED
from vclr_lightning.data.indexing.journal import Journal
from vclr_lightning.data.prepare.recipe import Recipe

_FORM = 2  # changes when files of an earlier version are no longer what would be made now


@dataclass(frozen=True, slots=True)
class PreparedFolder:
    """Paths in the folder of the result.

    Attributes:
        out: the folder, absolute; the videos lie in it as in their source.
    """

    out: Path

    @property
    def manifest(self) -> Path:
        """What training reads."""
        return self.out / "manifest.arrow"

    @property
    def source(self) -> Path:
        """The manifest of the source, where a folder was given."""
        return self.out / PREPARED / "source.arrow"

    def journal(self) -> Journal:
        """What came of each source."""
        return Journal(self.out / PREPARED / "journal", {"form": _FORM})

    def claim(self, root: Path, recipe: Recipe) -> None:
        """Make the folder, or see that it holds the same videos, prepared in the same way.

        Args:
            root: folder of the sources.
            recipe: how they are re-encoded.

        Raises:
            UserError: it holds something else, lies within the sources or they in it, or cannot
                be written to.
        """
        claim_folder(self.out, root, recipe.as_dict(), mark=PREPARED)

    def clean(self, names: Iterable[str]) -> None:
        """Remove what killed runs left half written in the folders of these videos."""
        for folder in {(self.out / name).parent for name in names}:
            remove_partial(folder)


def claim_folder(out: Path, root: Path, settings: Mapping[str, object], *, mark: str) -> None:
    """Make the folder of a result, or see that it holds that of the same videos and settings.

    Args:
        out: the folder.
        root: folder of the sources.
        settings: what the result depends on beside them.
        mark: name of a subfolder, in which they are noted.

    Raises:
        UserError: it holds something else, lies within the sources or they in it, or cannot be
            written to.
    """
    inner, outer = out.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(
            f"--out {out} and the videos in {root} must not lie in one another; give another folder"
        )
    file = out / mark / "settings.json"
    clear_leftovers(file.parent)
    settings = {"root": str(outer), **settings}
    try:
        known = unsealed(read_text(file), file) if file.is_file() else None
    except UserError as error:
        raise UserError(
            f"{error}, so that it is not known how the videos in {out} were made; delete that "
            "folder, or give another as --out"
        ) from error
    if known is None and out.exists() and (not out.is_dir() or any(_seen(out, mark))):
        raise UserError(f"{out} holds something else; give a new or empty folder as --out")
    differing = {key for key in known or () if settings.get(key) != (known or {})[key]}
    if differing:
        held = ", ".join(f"{key} {(known or {})[key]}" for key in sorted(differing))
        raise UserError(
            f"{out} holds videos prepared otherwise ({held}); give another folder as --out, or the "
            "same settings to go on"
        )
    if known is None:
        write_record(file, settings)


def _seen(folder: Path, mark: str) -> Iterable[Path]:
    """What is in the folder; a first run that was killed at once leaves its own subfolder."""
    return (entry for entry in folder.iterdir() if entry.name != mark)
