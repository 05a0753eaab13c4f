"""The videos of a run, and those held out of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import notice
from vclr_lightning.data.datasets import DATASETS
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.indexing.ensure import default_cache
from vclr_lightning.data.indexing.listing import known_source
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.manifest.summary import leaks
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare import prepare as prepare_videos
from vclr_lightning.data.prepare.prepared import size_text
from vclr_lightning.data.readers import (
    ImageFolderReader,
    PyAVReader,
    ShardReader,
    TableStore,
    TorchcodecReader,
)
from vclr_lightning.data.readers.sequential import MAX_DAMAGED
from vclr_lightning.data.synthetic import generate

WHOLE = "whole"
"""``dataset`` that uses all videos of a folder, including the test videos of a published set."""

_SAMPLE = 512  # videos whose names identify the data set
# File names of data sets whose splits often share one folder.
_TOGETHER = {
    "kinetics400": re.compile(r"(?:^|/)[\w-]{11}_\d{6}_\d{6}\.\w+$"),
    "activitynet": re.compile(r"(?:^|/)v_[\w-]{11}\.\w+$"),
    "sthv2": re.compile(r"(?:^|/)\d+\.webm$"),
}


def video_data(
    *,
    root: str | Path | None = None,
    manifest: str | Path | None = None,
    train_list: str | Path | None = None,
    val_list: str | Path | None = None,
    kinetics: Sequence[str | Path] | str = (),
    dataset: str | None = None,
    annotations: str | Path | None = None,
    split_number: int = 1,
    view: str | None = None,
    classes: str = "folder",
    group_regex: str | None = None,
    frames: str | None = None,
    decode: bool = False,
    max_damaged: float = MAX_DAMAGED,
    prepare: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    holdout: float = 0.05,
    seed: int = 0,
    reader: Any = None,
    **loading: Annotated[Any, VideoDataModule],
) -> VideoDataModule:
    """Index the videos where that has not been done, split them, and build the data module.

    Args:
        root, manifest, train_list, val_list, kinetics, dataset, annotations, split_number, view,
            classes, group_regex, frames, decode, max_damaged, cache_dir: see
            :func:`~vclr_lightning.data.indexing.ensure_manifest`. A folder of a published data set,
            recognised by its file names, is refused without its official lists, unless ``dataset``
            is ``"whole"``.
        prepare: arguments of :class:`~vclr_lightning.data.prepare.Recipe`, such as ``short_edge``,
            to re-encode the videos once, into ``cache_dir``, and to read those copies; ``None`` to
            read the videos as they are. What `vclr prepare` or `vclr shard` has made, and extracted
            frames, are read as they are, too.
        holdout: share of the videos to hold out, by whole groups, where there is no split ``val``.
        seed: of the held-out share, and of the data module.
        reader: of the videos; by default of files, or of images where ``frames`` is given;
            ``"torchcodec"`` for TorchCodec. It reads videos in shards as parts of these.
        loading: the other arguments of
            :class:`~vclr_lightning.data.loading.datamodule.VideoDataModule`.

    Raises:
        UserError: there are no videos, or they cannot be split.
    """
    if root is None and manifest is None:
        raise UserError("no videos are named; give data.root=FOLDER or data.manifest=FILE")
    table = ensure_manifest(
        root,
        manifest=manifest,
        train_list=train_list,
        val_list=val_list,
        kinetics=kinetics,
        dataset=None if dataset == WHOLE else dataset,
        annotations=annotations,
        split_number=split_number,
        view=view,
        classes=classes,
        group_regex=group_regex,
        frames=frames,
        decode=decode,
        max_damaged=max_damaged,
        cache_dir=cache_dir,
        show=is_rank_zero(),
    )
    doubt = None if dataset == WHOLE else check_official(table)
    if doubt and is_rank_zero():
        notice(doubt)
    for line in leaks(table) if is_rank_zero() else ():
        notice(line)
    if prepare is not None:
        table = _prepared(table, prepare, cache_dir)
    train, val = split_videos(table, holdout=holdout, seed=seed)
    if reader == "torchcodec":
        reader = TorchcodecReader()
    if isinstance(reader, str):
        raise UserError(
            f"data.reader={reader!r} must have a _target_ or be torchcodec; leave it out for ours"
        )
    if reader is None:
        template = frames if frames is not None else table.info.frames
        if template is not None:
            reader = ImageFolderReader(template=template)
        else:
            tables = TableStore(_cache(cache_dir) / "tables")
            reader = PyAVReader(tables=tables, max_damaged=max_damaged)
    if table.info.shards and not isinstance(reader, ShardReader):
        reader = ShardReader(reader)
    own = {name: table.split(name) for name in table.splits}
    splits = own if len(own) > 1 else None  # without splits, the share held out
    return VideoDataModule(train=train, val=val, splits=splits, seed=seed, reader=reader, **loading)


def _cache(folder: str | Path | None) -> Path:
    return (default_cache() if folder is None else Path(folder).expanduser()).absolute()


def _prepared(table: Manifest, recipe: Mapping[str, Any], cache: str | Path | None) -> Manifest:
    """Return the manifest of re-encoded copies, made on first use."""
    made = "; prepared from " in table.info.source
    if made or table.info.shards or table.info.frames is not None:
        return table
    how = Recipe(**recipe)
    key = json.dumps([str(table.root), table.info.source, how.describe()])
    name = f"{table.root.name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    out, show = _cache(cache) / "prepared" / name, is_rank_zero()
    found = prepare_videos(table, out, how, measure=False, show=show)
    if show and found.done > found.earlier:
        size = size_text(found.bytes_after)
        notice(
            f"{found.done:,} videos were re-encoded once, to be read faster ({how.describe()}):"
            f" {size} in {out}; data.prepare=null reads the videos as they are"
        )
    for line in found.notices() if show and found.failed else ():
        notice(line)
    return found.manifest


def synthetic_data(
    *,
    synthetic: Mapping[str, Any],
    root: str | Path | None = None,
    manifest: str | Path | None = None,
    view: str | None = None,
    **options: Annotated[Any, video_data],
) -> VideoDataModule:
    """Generate synthetic videos where none are named, and build the data module.

    Args:
        synthetic: arguments of :func:`~vclr_lightning.data.synthetic.generate`.
        root: folder of other videos to use instead.
        manifest: manifest of other videos to use instead.
        view: ``"localization"`` for the untrimmed ones.
        options: the other arguments of :func:`video_data`.
    """
    if root is None and manifest is None:
        root = generate(**synthetic, progress=is_rank_zero())
        root = root.with_name("untrimmed") if view == "localization" else root
    return video_data(root=root, manifest=manifest, view=view, **options)


def check_official(table: Manifest) -> str | None:
    """Refuse to train on test videos of a published data set.

    Checks videos indexed from a folder or from the user's own lists. The official test sets of
    UCF101 are the groups 1 to 7, 8 to 14 and 15 to 21 of each class; file names of HMDB51 identify
    the data set, not the split.

    Returns:
        A warning where test videos may be among them; otherwise ``None``.

    Raises:
        UserError: ``train`` has test videos of every official split, and no list says so.
    """
    source = table.info.source.split(";")[0]
    folder = source == "folder"
    if (not folder and not source.startswith("lists")) or "train" not in table.splits:
        return None
    paths = table.column("path")
    some = paths[:: -(-len(paths) // _SAMPLE)]
    sample = [known_source(path)[0] for path in some]
    name = max(sample, key=sample.count)
    if name == "ucf101":
        sources = {known_source(path)[1] for path in table.split("train").column("path")}
        numbers = {int(source.rpartition("_g")[2]) for source in sources if source}
        tested = {(number - 1) // 7 for number in numbers if number <= 21} == {0, 1, 2}
    else:
        tested = folder and name == "hmdb51" and len(table.splits) == 1
    if tested and folder:
        raise UserError(
            f"by their names, the videos in {table.root} are those of {DATASETS[name].title}, test "
            f"videos among them, and no list says which; give data={name} with data.annotations="
            f"FOLDER of its official lists, or data.dataset={WHOLE} to take all of them"
        )
    if tested:
        return (
            f"by their names, the videos to train on are of {DATASETS[name].title}, and some are "
            f"test videos whichever official split is meant; data={name} takes its official lists"
        )
    for name, pattern in _TOGETHER.items() if folder and len(table.splits) == 1 else ():
        if 2 * sum(pattern.search(path) is not None for path in some) > len(some):
            return (
                f"the videos in {table.root} have names as in {DATASETS[name].title}, and nothing "
                "says which are of its validation and test sets: any that are there are trained "
                f"on, too. data={name} takes its official lists, and data.dataset={WHOLE} all "
                "videos without this line"
            )
    return None


def split_videos(table: Manifest, *, holdout: float, seed: int) -> tuple[Manifest, Manifest | None]:
    """Return the training videos and the held-out ones: ``val``, or a share of ``train``.

    Raises:
        UserError: there is no split ``train``, or ``holdout`` is out of range.
    """
    if not 0 <= holdout < 1:
        raise UserError(f"data.holdout={holdout} must be at least 0 and below 1")
    train = table.split("train")
    if "val" in table.splits:
        return train, table.split("val")
    if holdout == 0:
        return train, None
    return train.hold_out(holdout, seed)
