"""Videos that a user names, or a sample of a split."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.readers import PyAVReader, probe

if TYPE_CHECKING:
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.data.protocols import VideoReader, VideoTable

DataFactory = Callable[[], "VideoDataModule"]


@dataclass(frozen=True)
class ChosenVideo:
    """One video, wherever it comes from.

    Attributes:
        table: that has it.
        row: of the table.
        reader: opens it.
        name: for a reader.
        split: that it is of; empty for a file of its own.
        classes: names of the labels.
    """

    table: VideoTable
    row: int
    reader: VideoReader
    name: str
    split: str = ""
    classes: Sequence[str] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path(self.row)

    @property
    def label(self) -> int:
        """The class, or -1 where there is none."""
        return self.table.label(self.row)


class Files:
    """Files of no data set, as a :class:`~vclr_lightning.data.protocols.VideoTable`.

    Example:
        >>> Files([Path("a.mp4")]).label(0)
        -1
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def fingerprint(self) -> str:
        """The paths."""
        return "\n".join(map(str, self._paths))

    def path(self, i: int) -> Path:
        """Return the file."""
        return self._paths[i]

    def video_id(self, i: int) -> int:
        """Return the position."""
        return i

    def group_id(self, i: int) -> int:
        """Return the position: every file is a group of its own."""
        return i

    def label(self, i: int) -> int:
        """Return -1: there are no classes."""
        return -1

    def num_frames(self, i: int) -> int | None:
        """Return the number of frames, or ``None`` where it is not sure.

        Raises:
            VideoError: the file is no readable video, or is truncated.
        """
        found = probe(self._paths[i])
        return found.num_frames if found.exact else None

    def window(self, i: int) -> tuple[float, float] | None:
        """Return ``None``: the whole file."""
        return None


def choose_videos(
    videos: Sequence[str | Path] | str | None,
    *,
    data: DataFactory | None = None,
    split: str | None = None,
    count: int = 4,
    seed: int = 0,
    labelled: bool = False,
) -> list[ChosenVideo]:
    """Return the videos of some paths, or a sample of a split.

    Args:
        videos: paths of files; or paths below the data set's folder, or its names of videos.
            ``None`` for a sample.
        data: gives the data set; not asked where all of ``videos`` are files and no labels are
            wanted.
        split: to draw from; ``None``: ``val``, ``test`` or ``train``, the first that there is.
        count: how many to draw.
        seed: of the draw.
        labelled: whether labels are wanted.

    Raises:
        UserError: a video is not found, or there are none.
    """
    if count < 1:
        raise UserError(f"count={count} videos must be 1 or more")
    names = [str(videos)] if isinstance(videos, str | Path) else [str(v) for v in videos or ()]
    files = [Path(name).expanduser() for name in names]
    if names and not labelled and all(file.is_file() for file in files):
        alone = Files(files)
        return [ChosenVideo(alone, i, PyAVReader(), file.stem) for i, file in enumerate(files)]
    if data is None or not _names_data(data):
        raise UserError(_without_data(names, files))
    module = data()
    if names:
        return _found(names, module)
    chosen = split or next((s for s in ("val", "test", "train") if module.splits.get(s)), "train")
    table = module.split(chosen)
    rng = numpy_generator(seed, "gradcam")
    rows = sorted(rng.choice(len(table), min(count, len(table)), replace=False).tolist())
    return [_of_row(module, chosen, row) for row in rows]


def _without_data(names: Sequence[str], files: Sequence[Path]) -> str:
    """Say what is missing where there is no data set."""
    if not names:
        return "no videos are named; give videos=[FILE,...], or data.root=FOLDER to draw from"
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            return (
                f"there is no video file {name}; check the path, or give the folder of videos "
                "that has it (data.root=FOLDER)"
            )
    return "files have no labels; give the data set that they are of as well (data.root=FOLDER)"


def _names_data(data: DataFactory) -> bool:
    """Whether a partly built data module says where videos are; anything else does."""
    options = getattr(data, "keywords", None)
    return options is None or any(options.get(key) for key in ("root", "manifest", "synthetic"))


def _found(names: Sequence[str], module: VideoDataModule) -> list[ChosenVideo]:
    """Look videos up in all splits: by path, by path below the root, by name, by stem."""
    known: dict[str, list[tuple[str, int]]] = {}
    for split, table in module.splits.items():
        for row in range(len(table)):
            for key in _keys(table, row):
                known.setdefault(key, []).append((split, row))
    chosen: list[ChosenVideo] = []
    for name in names:
        file = Path(name).expanduser()
        places = known.get(str(file.absolute())) or known.get(name) or []
        if len(places) > 1:
            paths = [str(module.splits[split].path(row)) for split, row in places[:3]]
            raise UserError(
                f"video {name} may be {len(places)} of the videos: {', '.join(paths)}; give the "
                "path of one"
            )
        if places:
            chosen.append(_of_row(module, *places[0]))
        elif file.is_file():
            chosen.append(ChosenVideo(Files([file]), 0, PyAVReader(), file.stem))
        else:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"near it are {', '.join(near)}" if near else "check the path"
            count = sum(map(len, module.splits.values()))
            raise UserError(
                f"there is no video {name}: no such file, and none of the data set's {count} "
                f"videos has this path or name; {hint}"
            )
    return chosen


def _keys(table: Any, row: int) -> set[str]:
    path = table.path(row)
    keys = {str(path.absolute())}
    if hasattr(table, "relative_path"):
        keys |= {table.relative_path(row), table.name(row)}
    return keys


def _of_row(module: VideoDataModule, split: str, row: int) -> ChosenVideo:
    table: Any = module.splits[split]
    name = table.name(row) if hasattr(table, "name") else table.path(row).stem
    classes = getattr(table, "classes", ())
    return ChosenVideo(table, row, module.reader, name, split, classes)
