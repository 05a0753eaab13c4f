"""What features depend on, as plain values, and how two sets of features differ."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import is_new
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.evaluation.store import ABOUT, FeatureStore
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD, pixel_statistics
from vclr_lightning.models.backbone import unwrap

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import ClipTransform, VideoTable
    from vclr_lightning.data.sampling import RandomWindow, SlidingWindows

logger = logging.getLogger(__name__)

ABSENT, DAMAGED, RETRIED, COMPLETE = "absent", "damaged", "retried", "complete"
_TITLES = {"manifest": "videos", "sampling": "frames of a video"}  # of keys, for a reader
_READABLE = {"weights": "file", "manifest": "videos", "files": "videos"}  # instead of hashes
_MAY_DIFFER = {"file", "videos", "package"}


def digest(provenance: Mapping[str, Any]) -> str:
    """Return the hash by which features are looked up."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:24]


def network_name(backbone: nn.Module) -> str:
    """Return the name of a network, and a hash of how it is built."""
    net = unwrap(backbone)
    return f"{type(net).__name__}-{hashlib.sha256(repr(net).encode()).hexdigest()[:12]}"


def normalisation(backbone: nn.Module) -> dict[str, Any]:
    """Return how pictures are normalised, if not as for ImageNet."""
    mean, std = pixel_statistics(backbone)
    usual = (mean, std) == (IMAGENET_MEAN, IMAGENET_STD)
    return {} if usual else {"pixels": {"mean": list(mean), "std": list(std)}}


def described(transform: ClipTransform | RandomWindow | SlidingWindows) -> Any:
    """Return a transform, or windows, as plain values."""
    name = type(transform).__name__
    values = asdict(transform) if is_dataclass(transform) else {"repr": repr(transform)}
    return json.loads(json.dumps({"name": name, **values}))


def files_of(table: VideoTable) -> str:
    """Hash of the files' sizes and times, which change when one is repaired or replaced."""
    if not isinstance(table, Manifest):
        return ""
    content = b"".join(table.column(name).tobytes() for name in ("size", "mtime_ns"))
    return hashlib.sha256(content).hexdigest()[:12]


def videos_of(table: VideoTable) -> str:
    """Describe the videos: how many there are, and where."""
    where = table.root if isinstance(table, Manifest) else type(table).__name__
    return f"{len(table):,} in {where}"


def difference(found: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first difference between stored and wanted features in words, or ``None``.

    Args:
        found: provenance of the stored features, with readable names of its hashes: the weights'
            ``file`` and the ``videos``.
        now: of the wanted ones.

    Example:
        >>> was = {"weights": "8c1f", "file": "a/last.ckpt", "sampling": {"num_frames": 30}}
        >>> difference(was, was | {"weights": "77d0", "file": "b/last.ckpt"})
        'other weights (a/last.ckpt; now b/last.ckpt)'
        >>> difference(was, was | {"weights": "77d0"})
        'other weights (a/last.ckpt, which has changed since)'
        >>> difference(was, was | {"sampling": {"num_frames": 8}})
        'other frames of a video (num_frames 30; now 8)'
    """
    for key, value in now.items():
        if key not in _MAY_DIFFER and found.get(key) != value:
            return f"other {_TITLES.get(key, key)} ({_change(key, found, now)})"
    return None


def _change(key: str, found: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    was, value = found.get(key), now[key]
    if key in _READABLE:
        before, after = (str(side.get(_READABLE[key], "unknown")) for side in (found, now))
    elif key == "network":
        before, after = (str(side).rpartition("-")[0] for side in (was, value))
    elif isinstance(was, Mapping) and isinstance(value, Mapping):
        names = [name for name in {**was, **value} if was.get(name) != value.get(name)]
        before, after = (", ".join(str(side.get(name)) for name in names) for side in (was, value))
        return f"{', '.join(names)} {before}; now {after}"
    else:
        before, after = str(was), str(value)
    if before != after:
        return f"{before}; now {after}"
    # Without a file the weights are random.
    return "other random ones" if before == "none" else f"{before}, which has changed since"


def stored_state(target: Path, about: Mapping[str, Any], *, named: bool, retry: bool) -> str:
    """Return the state of the features in a folder: absent, damaged, to be retried, or complete.

    Args:
        target: the folder.
        about: provenance of the wanted features.
        named: whether the user named the folder, in which nothing is deleted.
        retry: whether to try videos again that could not be read for a reason that may have passed.

    Raises:
        UserError: it holds something else, or the user named it and the features are damaged.
    """
    if not (target / ABOUT).is_file():
        if target.is_dir() and any(target.iterdir()):
            raise UserError(f"{target} holds other files; give another features.folder")
        return ABSENT
    try:
        store = FeatureStore.open(target)
    except UserError as error:
        if named:
            raise
        if is_new(str(error)):
            logger.warning("%s", error)
        return DAMAGED
    if other := difference(store.provenance, about):
        raise UserError(
            f"{target} holds features of {other}; give another features.folder, or delete this one"
        )
    return RETRIED if retry and any(r.get("passing") for r in store.rejected) else COMPLETE
