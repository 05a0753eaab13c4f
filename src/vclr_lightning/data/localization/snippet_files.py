"""Snippet features of videos, from files or any other source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.arrays import map_array
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.localization.annotations import AnnotatedVideo, LeftOut

SUFFIXES = (".npy", ".csv")
_LARGEST = 500 * 10**6  # bytes of a table


@dataclass(frozen=True)
class SnippetSet:
    """Features of videos, read one by one.

    Attributes:
        read: by name, returns a video's features in order, ``(m, F)``.
        placed: whether features of T rows are already at the network's positions.
        left_out: videos without features, with reasons.
        provenance: source of the features, as plain values.
    """

    read: Mapping[str, Callable[[], Tensor]]
    placed: bool = False
    left_out: Sequence[LeftOut] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


class SnippetSource(Protocol):
    """A source of features for annotated videos."""

    def annotations(self) -> list[AnnotatedVideo]:
        """Return the annotations that the source itself has."""
        ...

    def open(self, videos: Sequence[AnnotatedVideo]) -> SnippetSet:
        """Return the features of these videos, as far as they exist."""
        ...


class SnippetFiles:
    """Features in a folder, a file for each video: ``v_ID.csv``, ``ID.npy`` and so on.

    A ``.csv`` has a line for each snippet, below a heading as the authors of BMN and mmaction2
    publish them or without one; a ``.npy`` holds ``(m, F)``. Files with as many rows as the network
    has positions are used unchanged, others are resampled.

    Args:
        folder: of the files.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise UserError(f"snippets.folder={folder} does not exist; give a folder of features")
        self.files = {
            path.stem: path for path in sorted(self.folder.iterdir()) if path.suffix in SUFFIXES
        }
        if not self.files:
            raise UserError(f"there are no .csv and .npy files of features in {self.folder}")

    def annotations(self) -> list[AnnotatedVideo]:
        """Raise a ``UserError``: files of features contain no annotations."""
        raise UserError(
            f"the features in {self.folder} have no annotations; give annotations=FILE, such as "
            "activity_net.v1-3.min.json"
        )

    def open(self, videos: Sequence[AnnotatedVideo]) -> SnippetSet:
        """Return the features of these videos."""
        read, left_out = {}, []
        for video in videos:
            file = self.files.get(f"v_{video.name}") or self.files.get(video.name)
            if file is None:
                reason = f"it has no file in {self.folder}"
                left_out.append(LeftOut(video.name, "video left out", reason))
            else:
                read[video.name] = partial(read_snippets, file)
        return SnippetSet(read, True, left_out, {"folder": str(self.folder.absolute())})


def read_snippets(file: Path) -> Tensor:
    """Read one file of features, ``(m, F)`` float32.

    Raises:
        UserError: it cannot be read, or is no table of numbers.
    """
    try:
        if file.suffix == ".npy":
            array = map_array(file)
        else:
            if file.stat().st_size > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST // 10**6} MB")
            skipped = int(_has_heading(file))
            array = np.loadtxt(file, dtype=np.float32, delimiter=",", skiprows=skipped, ndmin=2)
        array = np.asarray(array, dtype=np.float32)
    except UserError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{file} is no table of features: {error}") from error
    if array.ndim != 2 or not array.size:
        raise UserError(f"{file} has the shape {array.shape}, not (snippets, features)")
    return torch.from_numpy(np.ascontiguousarray(array))


def _has_heading(file: Path) -> bool:
    """Whether a table's first line holds column names or numbers."""
    with file.open() as source:
        cells = source.readline(_LARGEST // 100).strip().split(",")
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return True
    return any(numbers == list(range(first, first + len(cells))) for first in (0, 1))
