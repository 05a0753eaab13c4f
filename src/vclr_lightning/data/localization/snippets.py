"""Where the features of a video's snippets come from: files of others, or anything alike."""

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
        read: by name, gives a video's features in order, ``(m, F)``.
        placed: whether they may stand at the network's positions already: those of T rows are then
            taken as they are.
        left_out: videos without features, and why.
        provenance: where the features come from, as plain values.
    """

    read: Mapping[str, Callable[[], Tensor]]
    placed: bool = False
    left_out: Sequence[LeftOut] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


class SnippetSource(Protocol):
    """Gives features of annotated videos."""

    def annotations(self) -> list[AnnotatedVideo]:
        """Return what the source itself knows to be annotated."""
        ...

    def open(self, videos: Sequence[AnnotatedVideo]) -> SnippetSet:
        """Return the features of these videos, as far as there are any."""
        ...


class SnippetFiles:
    """Features in a folder, a file for each video: ``v_ID.csv``, ``ID.npy`` and so on.

    A ``.csv`` has a line for each snippet below a heading, as the authors of BMN and mmaction2
    publish them, or without one; a ``.npy`` holds ``(m, F)``. Files of as many rows as the network
    has positions are taken as they are; others are resampled.

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
        """Files of features tell nothing of the videos.

        Raises:
            UserError: always.
        """
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
    """Read one file of features.

    Shape:
        Returns ``(m, F)`` float32.

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
    """Whether a table's first line names its columns, by words or by counting them."""
    with file.open() as source:
        cells = source.readline(_LARGEST // 100).strip().split(",")
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return True
    return any(numbers == list(range(first, first + len(cells))) for first in (0, 1))
