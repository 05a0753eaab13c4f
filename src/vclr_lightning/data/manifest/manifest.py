"""A manifest: one row per video, mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest.manifest_file import read_manifest
from vclr_lightning.data.manifest.schema import Info, Row, Span
from vclr_lightning.data.manifest.selection import RowSelection, hold_out_groups


class Manifest:
    """A manifest file, or a selection of its rows; made by :meth:`load`.

    The file is mapped, and a selection takes one bit per row, so the private memory of a data
    worker hardly grows with the number of videos; pickled, it is the file's path and the
    selection. Positions ``i`` run over the selection, in the order of the file.
    """

    def __init__(
        self,
        file: Path,
        *,
        root: Path | None = None,
        rows: RowSelection | None = None,
        expect: str = "",
    ) -> None:
        self._file = file.absolute()
        # What was pickled was verified by the process that opened it first.
        self._columns, self._info = read_manifest(self._file, verify=not expect)
        self._root = (root or self._info.root).absolute()
        self._rows = rows
        if expect and expect != self._info.fingerprint:
            raise UserError(f"the manifest {file} was replaced by another while it was in use")

    @classmethod
    def load(
        cls, file: str | Path, root: str | Path | None = None, *, check_root: bool = True
    ) -> Manifest:
        """Open a manifest.

        Args:
            file: written by ``vclr index`` or :func:`write_manifest`.
            root: the folder of the videos, if it has moved since.
            check_root: refuse a root that does not exist.

        Raises:
            UserError: the file is damaged or no manifest, or the videos' folder does not exist.
        """
        manifest = cls(Path(file), root=None if root is None else Path(root))
        if check_root and not manifest.root.is_dir():
            raise UserError(
                f"the videos of {file} are expected in {manifest.root}, which does not exist; "
                "give the folder they are in now as root"
            )
        return manifest

    def __reduce__(self) -> tuple[object, ...]:
        expect = self._info.fingerprint
        return partial(Manifest, self._file, root=self._root, rows=self._rows, expect=expect), ()

    def __len__(self) -> int:
        return len(self._columns["path"]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Manifest({str(self._file)!r}, videos={len(self)}, splits={self.splits})"

    @property
    def file(self) -> Path:
        """The file this was loaded from."""
        return self._file

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self._root

    @property
    def info(self) -> Info:
        """The header of the file."""
        return self._info

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""
        return self._info.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def fingerprint(self) -> str:
        """Hash of paths, windows, ids, groups, labels, splits, spans, classes and selection."""
        if self._rows is None:
            return self._info.fingerprint
        content = self._info.fingerprint.encode() + self._rows.tobytes()
        return hashlib.sha256(content).hexdigest()[:32]

    def path(self, i: int) -> Path:
        """Return the file (or the folder of frames) of video ``i``."""
        return self._root / self.relative_path(i)

    def relative_path(self, i: int) -> str:
        """Return the path of video ``i`` below the root, with ``/``."""
        return str(self.value("path", i))

    def name(self, i: int) -> str:
        """Return the id of video ``i`` as text, by default its file's stem."""
        return str(self.value("name", i))

    def video_id(self, i: int) -> int:
        """Return the row of video ``i`` in the full manifest."""
        if not 0 <= i < len(self):
            raise IndexError(f"video {i} of a manifest of {len(self)}")
        return i if self._rows is None else self._rows[i]

    def group_id(self, i: int) -> int:
        """Return the code of video ``i``'s group; clips cut from one source share it."""
        return int(self._columns["group"].indices[self.video_id(i)].as_py())

    def label(self, i: int) -> int:
        """Return the position of video ``i``'s class in :attr:`classes`, -1 for none."""
        return int(self.value("label", i))

    def num_frames(self, i: int) -> int | None:
        """Return how many frames of video ``i``'s file decode, if that is known exactly."""
        return int(self.value("num_frames", i)) if self.value("exact", i) else None

    def window(self, i: int) -> tuple[float, float] | None:
        """Return where row ``i`` begins and ends within its file, ``None`` for the whole file.

        In seconds from the file's first frame; in frames, where videos are folders of those.
        """
        start = self.value("start", i)
        return None if start is None else (float(start), float(self.value("end", i)))

    def spans(self, i: int) -> tuple[Span, ...]:
        """Return the annotated segments of video ``i``, in order of time."""
        spans = self.value("spans", i) or ()
        return tuple(Span(**span) for span in spans)

    @property
    def has_spans(self) -> bool:
        """Whether any video of this selection has annotated spans."""
        return bool(self.column("spans").astype(np.bool_).any())

    @property
    def video_ids(self) -> NDArray[np.int64]:
        """Rows in the full manifest, ``(len(self),)`` int64."""
        if self._rows is not None:
            return self._rows.indices()
        return np.arange(len(self), dtype=np.int64)

    @property
    def group_ids(self) -> NDArray[np.int64]:
        """Codes of the groups, ``(len(self),)`` int64."""
        return self.column("group").astype(np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels, -1 for none, ``(len(self),)`` int64."""
        return self.column("label").astype(np.int64)

    @property
    def has_labels(self) -> bool:
        """Whether every video of this selection has a label."""
        return bool((self.column("label") >= 0).all())

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that this selection has videos of, sorted."""
        names = self.words("split")
        return tuple(names[code] for code in np.unique(self.column("split")))

    def split(self, name: str) -> Manifest:
        """Return the videos of one split.

        Raises:
            UserError: there are none.
        """
        if name not in self.splits:
            raise UserError(
                f"{self._file} has no split {name!r}; it has: {', '.join(self.splits) or 'none'}. "
                f"List videos of it when indexing ({name}_list), or give a manifest that has it"
            )
        return self.select(self.column("split") == self.words("split").index(name))

    def select(self, mask: NDArray[np.bool_]) -> Manifest:
        """Return the videos where ``mask``, ``(len(self),)`` bool, is true."""
        full = np.zeros(len(self._columns["path"]), dtype=np.bool_)
        full[self.video_ids[mask]] = True
        view = object.__new__(Manifest)
        view.__dict__.update(self.__dict__, _rows=None if full.all() else RowSelection(full))
        return view

    def hold_out(self, share: float, seed: int) -> tuple[Manifest, Manifest]:
        """Split the videos in two, ``(the rest, about share of them)``, by whole groups.

        Raises:
            UserError: ``share`` is outside (0, 1), or all videos are of one group.
        """
        out = hold_out_groups(self.group_ids, share, seed)
        return self.select(~out), self.select(out)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of this selection as an array; NaN where a number is unknown.

        Columns of words contain codes, positions in :meth:`words`, -1 where unknown; the column
        ``spans`` contains the number of spans.
        """
        array = self._columns[name]
        values: NDArray[Any]
        if name == "spans":
            lengths = array.value_lengths().to_numpy(zero_copy_only=False)
            values = np.nan_to_num(lengths, nan=0).astype(np.int64)
        elif hasattr(array, "indices"):
            codes = array.indices.to_numpy(zero_copy_only=False)
            values = np.nan_to_num(codes, nan=-1).astype(np.int32)
        else:
            values = array.to_numpy(zero_copy_only=False)
        return values if self._rows is None else values[self._rows.indices()]

    def words(self, name: str) -> list[str]:
        """Return the sorted words of a column such as ``codec`` or ``split``."""
        return [str(word) for word in self._columns[name].dictionary.to_pylist()]

    def value(self, column: str, i: int) -> Any:
        """Return the value of a column for video ``i``, ``None`` where that is unknown."""
        return self._columns[column][self.video_id(i)].as_py()

    def rows(self) -> Iterator[Row]:
        """Yield the rows of this selection, as they were written."""
        columns = list(self._columns.values())
        if self._rows is not None:
            columns = [column.take(self._rows.indices()) for column in columns]
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            row = dict(zip(self._columns, values, strict=True))
            spans = tuple(Span(**span) for span in row.pop("spans") or ())
            yield Row(**row, spans=spans)
