"""The videos to explain: named ones, or a sample of a split."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.stages.shared.loose_videos import VideoFiles

if TYPE_CHECKING:
    from vclr_lightning.data.loading.datamodule import VideoDataModule
    from vclr_lightning.data.protocols import VideoReader, VideoTable

DataFactory = Callable[[], "VideoDataModule"]


@dataclass(frozen=True)
class ChosenVideo:
    """A row of a table of videos, and the reader that opens it.

    Attributes:
        table: that has it.
        row: of the table.
        reader: opens it.
        name: for a reader.
        split: that it is of; empty for a file of no data set.
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
        """The true class, or -1 where there is none."""
        return self.table.label(self.row)


def choose_videos(
    videos: Sequence[str | Path] | str | None,
    *,
    data: DataFactory | None = None,
    split: str | None = None,
    count: int = 4,
    seed: int = 0,
    labelled: bool = False,
) -> list[ChosenVideo]:
    """Return the videos of some paths or names, or a sample of a split.

    The data set is not built where all of ``videos`` are files and no labels are needed.

    Raises:
        UserError: a video is not found, or there are none.
    """
    if count < 1:
        raise UserError(f"count={count} videos must be 1 or more")
    names = [str(videos)] if isinstance(videos, str | Path) else [str(v) for v in videos or ()]
    files = [Path(name).expanduser() for name in names]
    if names and not labelled and all(file.is_file() for file in files):
        return [_of_file(file) for file in files]
    # a partly built data module that names no videos, as of a command without data.root
    options = getattr(data, "keywords", {"root": True})
    if data is None or not any(options.get(key) for key in ("root", "manifest", "synthetic")):
        raise UserError(_without_data(names, files))
    module = data()
    if names:
        return _find(names, module)
    chosen = split or next((s for s in ("val", "test", "train") if module.splits.get(s)), "train")
    table = module.split(chosen)
    rng = numpy_generator(seed, "gradcam")
    rows = sorted(rng.choice(len(table), min(count, len(table)), replace=False).tolist())
    return [_of_row(module, chosen, row) for row in rows]


def _without_data(names: Sequence[str], files: Sequence[Path]) -> str:
    if not names:
        return "no videos are named; give videos=[FILE,...], or data.root=FOLDER to draw from"
    missing = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
    if missing:
        return (
            f"there is no video file {missing[0]}; check the path, or give the folder of videos "
            "that has it (data.root=FOLDER)"
        )
    return "files have no labels; give the data set that they are of as well (data.root=FOLDER)"


def _find(names: Sequence[str], module: VideoDataModule) -> list[ChosenVideo]:
    """Find videos in all splits: by path, by path below the root, or by name."""
    known: dict[str, list[tuple[str, int]]] = {}
    table: Any
    for split, table in module.splits.items():
        for row in range(len(table)):
            keys = {str(table.path(row).absolute())}
            if hasattr(table, "relative_path"):
                keys |= {table.relative_path(row), table.name(row)}
            for key in keys:
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
            chosen.append(_of_file(file))
        else:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"near it are {', '.join(near)}" if near else "check the path"
            count = sum(map(len, module.splits.values()))
            raise UserError(
                f"there is no video {name}: no such file, and none of the data set's {count} "
                f"videos has this path or name; {hint}"
            )
    return chosen


def _of_file(file: Path) -> ChosenVideo:
    return ChosenVideo(VideoFiles((file,)), 0, PyAVReader(), file.stem)


def _of_row(module: VideoDataModule, split: str, row: int) -> ChosenVideo:
    table: Any = module.splits[split]
    name = table.name(row) if hasattr(table, "name") else table.path(row).stem
    return ChosenVideo(table, row, module.reader, name, split, getattr(table, "classes", ()))
