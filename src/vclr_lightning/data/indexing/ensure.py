"""The manifest of a run: the one given, or one kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.core.screen import notice
from vclr_lightning.data.indexing.indexer import index_videos
from vclr_lightning.data.indexing.source import ListingSource
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.readers.sequential import MAX_DAMAGED

PathLike = str | Path

PREPARED = ".prepare"
"""Subfolder, for settings and journal, of a folder that ``vclr prepare`` made."""

_LAUNCH = "VCLR_LAUNCH"  # inherited by the ranks that the first one starts
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/vclr_lightning``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vclr_lightning"


def ensure_manifest(
    root: PathLike | None = None,
    *,
    manifest: PathLike | None = None,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    kinetics: PathLike | Sequence[PathLike] = (),
    dataset: str | None = None,
    annotations: PathLike | None = None,
    split_number: int = 1,
    view: str | None = None,
    classes: str = "folder",
    group_regex: str | None = None,
    frames: str | None = None,
    decode: bool = False,
    max_damaged: float = MAX_DAMAGED,
    workers: int | None = None,
    cache_dir: PathLike | None = None,
    show: bool = True,
) -> Manifest:
    """Load the manifest of ``root``, indexing it first where that has not been done.

    The index is kept in ``cache_dir``, one per root and way of listing it, so ``root`` may be
    read-only. Each call looks at the folder again and probes the files that are new or changed;
    among the ranks of a training, one does so. A ``manifest`` that is given is used as it is,
    without the videos of which too much is known to be damaged.

    Args:
        root: the folder of the videos, or of the shards that ``vclr shard`` wrote; with a
            ``manifest``, where they are now.
        manifest: a file that ``vclr index`` wrote.
        train_list: list file of the split ``train``, ``path [[frames] label]``.
        val_list: list file of the split ``val``.
        kinetics: official Kinetics CSV files.
        dataset: name of a data set (:data:`vclr_lightning.data.datasets.DATASETS`) whose official
            files name the videos.
        annotations: the folder of these files.
        split_number: of the data set's divisions into training and test set, from 1.
        view: what rows are, for a data set that offers several; by default its usual one.
        classes: ``folder``, or ``none`` to leave labels out.
        group_regex: what to search in a path to find the video's group.
        frames: template of extracted frames, such as ``img_{:05d}.jpg``.
        decode: decode every video to its end while indexing, which finds damage.
        max_damaged: share of a video's frames that may be damaged.
        workers: processes for indexing.
        cache_dir: where to keep the index, by default ``~/.cache/vclr_lightning``.
        show: whether to show progress and what was left out.

    Raises:
        UserError: nothing usable is there, or the arguments contradict each other.
    """
    lists = {"train": train_list, "val": val_list}
    listed = {split: (_path(file),) for split, file in lists.items() if file is not None}
    files = [kinetics] if isinstance(kinetics, str | Path) else list(kinetics)
    if manifest is not None:
        if listed or files or annotations is not None:
            raise UserError("give either a manifest or files to index from, not both")
        return _sound(Manifest.load(_path(manifest), root and _path(root)), max_damaged, show)
    if root is None:
        raise UserError("give root, a folder of videos, or manifest, a file of `vclr index`")
    if classes not in ("folder", "none"):
        raise UserError(f"classes={classes!r} must be 'folder' or 'none'")
    packed = _path(root) / "manifest.arrow"
    if packed.is_file() and not listed and not files and dataset is None:
        stored = Manifest.load(packed)
        given = {
            "group_regex": group_regex,
            "frames": frames,
            "classes": None if classes == "folder" else classes,
            "decode": decode or None,
        }
        late = [name for name, value in given.items() if value is not None]
        if stored.info.shards and late:
            raise UserError(
                f"{late[0]} cannot change what the shards in {root} hold; give it to `vclr "
                "index` and make shards of that manifest"
            )
        # Prepared videos have their sources' labels and splits, which their folders may lack.
        prepared = (packed.parent / PREPARED).is_dir() and not late
        if stored.info.shards or prepared:
            return _sound(stored, max_damaged, show)
    source = ListingSource(
        root=_path(root),
        lists=listed,
        kinetics=tuple(map(_path, files)),
        dataset=dataset,
        annotations=None if annotations is None else _path(annotations),
        split_number=split_number,
        view=view,
        with_classes=classes == "folder",
        group_regex=group_regex,
        frames=frames,
    )
    cache = _path(cache_dir) if cache_dir is not None else default_cache()
    out = cache / f"{source.root.name}-{_key(source, decode=decode, max_damaged=max_damaged)}.arrow"

    def index(show: bool) -> Manifest:
        indexed = index_videos(
            source.listing(show=show),
            root=source.root,
            out=out,
            frames=frames,
            decode=decode,
            max_damaged=max_damaged,
            workers=workers,
            source=source.describe(),
            show=show,
        )
        for line in indexed.notices() if show else ():
            notice(line)
        return indexed.manifest

    return _once_per_launch(out, index, show=show)


def _sound(manifest: Manifest, max_damaged: float, show: bool) -> Manifest:
    """Leave out the videos of which too much is known to be damaged."""
    broken = manifest.column("damaged").astype(np.float64) > max_damaged
    if show and broken.any():
        notice(
            f"{broken.sum():,} videos of {manifest.file} are left out: more than {max_damaged:.1%} "
            "of their frames are damaged (data.max_damaged)"
        )
    return manifest.select(~broken)


def _path(path: PathLike) -> Path:
    return Path(path).expanduser().absolute()  # no shell expands the ~ of `data.root=~/videos`


def _key(source: ListingSource, *, decode: bool, max_damaged: float) -> str:
    lists = {split: [str(file) for file in files] for split, files in source.lists.items()}
    kinetics = [str(file) for file in source.kinetics]
    rest: list[object] = [source.with_classes, source.group_regex, source.frames, decode]
    if max_damaged != MAX_DAMAGED:
        rest.append(max_damaged)
    if source.dataset is not None:
        rest += [source.dataset, str(source.annotations), source.split_number, source.view]
    content = json.dumps([str(source.root), lists, kinetics, *rest])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:12]


def _once_per_launch(out: Path, index: Callable[[bool], Manifest], *, show: bool) -> Manifest:
    """Return the manifest ``out``, for which one rank of a launch calls ``index``.

    The first to come indexes, the others wait for it; if it fails or dies, the next one indexes.
    The ranks meet in the folder of ``out``: on machines that do not share it, one on each indexes.
    Of ranks that a launcher started, whichever indexes shows progress.
    """
    launched = _launch()
    launch = launched or os.environ.setdefault(_LAUNCH, uuid.uuid4().hex)
    follows = launched or os.environ.get("LOCAL_RANK", "0") != "0"
    note = out.with_suffix(".looked")
    with locked(Path(f"{out}.ranks"), show=show):
        noted = (read_record(note) or {}) if follows else {}
        if noted.get("launch") == launch:
            try:
                manifest = Manifest.load(out)
                if manifest.fingerprint == noted.get("fingerprint"):
                    return manifest
            except UserError:  # it is no longer there
                pass
        manifest = index(show or bool(launched))
        write_record(note, {"launch": launch, "fingerprint": manifest.fingerprint})
    return manifest


def _launch() -> str:
    """Return what the ranks that a launcher started have in common; empty if none did."""
    env = os.environ
    if any(name in env for name in _LAUNCHERS):
        again = env.get("TORCHELASTIC_RESTART_COUNT", "0")
        parent = os.getppid()
        try:  # numbers of processes are used again: the time of its start is not
            stat = Path(f"/proc/{parent}/stat").read_text()
            process = f"{parent} {stat.rpartition(')')[2].split()[19]}"
        except OSError:
            process = str(parent)
        return f"{socket.gethostname()} {process} {again}"
    if "SLURM_STEP_ID" in env and env.get("SLURM_NTASKS", "1") != "1":
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm " + " ".join(env.get(name, "0") for name in names)
    return ""
