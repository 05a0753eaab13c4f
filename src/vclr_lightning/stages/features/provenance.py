"""What features depend on, as plain values, and how two of these differ, for a reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from vclr_lightning.data.manifest import Manifest
from vclr_lightning.models.backbone import unwrap

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import ClipTransform, VideoTable

# What a difference is called, where not by its key; the first that is found is told.
_CALLED = {"manifest": "videos", "sampling": "frames of a video"}
# Of hashes nobody can tell anything: what stands for them.
_TOLD_BY = {"weights": "file", "manifest": "videos", "files": "videos"}
_ASIDE = {"file", "videos", "package"}  # may differ


def digest(provenance: Mapping[str, Any]) -> str:
    """Return a hash by which features are found again."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:24]


def network_name(backbone: nn.Module) -> str:
    """Return the name of a network, and a hash of how it is built."""
    net = unwrap(backbone)
    return f"{type(net).__name__}-{hashlib.sha256(repr(net).encode()).hexdigest()[:12]}"


def described(transform: ClipTransform) -> Any:
    """Return a transform as plain values."""
    name = type(transform).__name__
    values = asdict(transform) if is_dataclass(transform) else {"repr": repr(transform)}
    return json.loads(json.dumps({"name": name, **values}))


def files_of(table: VideoTable) -> str:
    """Hash of the files' sizes and times: one that was repaired or replaced is not the same."""
    if not isinstance(table, Manifest):
        return ""
    facts = b"".join(table.column(name).tobytes() for name in ("size", "mtime_ns"))
    return hashlib.sha256(facts).hexdigest()[:12]


def videos_of(table: VideoTable) -> str:
    """Name the videos for a reader: how many there are, and where."""
    where = table.root if isinstance(table, Manifest) else type(table).__name__
    return f"{len(table):,} in {where}"


def difference(found: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in what features that were found differ from those that are wanted; ``None`` if not.

    Args:
        found: provenance of the former, with what tells a reader its hashes: the weights'
            ``file`` and the ``videos``.
        now: of the latter.

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
        if key not in _ASIDE and found.get(key) != value:
            return f"other {_CALLED.get(key, key)} ({_change(key, found, now)})"
    return None


def _change(key: str, found: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    was, value = found.get(key), now[key]
    if key in _TOLD_BY:
        before, after = (str(side.get(_TOLD_BY[key], "unknown")) for side in (found, now))
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
