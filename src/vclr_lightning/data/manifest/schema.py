"""The columns and the header of a manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 3
METADATA_KEY = b"vclr_manifest"

PROBED = (
    "duration",
    "num_frames",
    "exact",
    "fps",
    "width",
    "height",
    "codec",
    "keyframe_interval",
    "damaged",
)
"""Fields of a row that are found by opening its file."""

OUTSIDE = r"^/|^$|\x00|(?:^|/)\.\.(?:/|$)"
"""Regular expression, for Python and Arrow, of paths that lead out of a manifest's root."""


class Span(NamedTuple):
    """An annotated segment of a video.

    Attributes:
        start: seconds from the video's first frame; of a folder of frames, frames.
        end: likewise.
        label: position in the manifest's classes, -1 for none.
    """

    start: float
    end: float
    label: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One video, or one clip inside of a longer video.

    Attributes:
        path: relative to the manifest's root, with ``/``.
        name: the video's id; by default the file's stem.
        group: clips cut from one source share it; by default the path, the video itself.
        split: such as ``train``.
        label: position in the manifest's classes, -1 for none.
        duration: seconds.
        num_frames: frames that decode, or that the container promises where not ``exact``.
        exact: whether ``num_frames`` is known to be right.
        fps: frames per second.
        width: pixels, as displayed.
        height: pixels, as displayed.
        codec: such as ``h264``.
        keyframe_interval: frames between keyframes.
        damaged: share of the frames that are damaged or lost, if the video was decoded to find
            out.
        size: bytes of the file.
        mtime_ns: time of the file's last change, nanoseconds.
        start: where the clip begins, in seconds from the file's first frame (of a folder of
            frames, in frames); ``None`` with ``end`` for the whole file.
        end: where it ends.
        spans: annotated segments, for localisation.
    """

    path: str
    name: str = ""
    group: str = ""
    split: str = "train"
    label: int = -1
    duration: float | None = None
    num_frames: int | None = None
    exact: bool = False
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    keyframe_interval: float | None = None
    damaged: float | None = None
    size: int = 0
    mtime_ns: int = 0
    start: float | None = None
    end: float | None = None
    spans: tuple[Span, ...] = ()

    @property
    def place(self) -> tuple[str, float, float, int]:
        """The key of a row: the file, and for a clip its window and label."""
        if self.start is None or self.end is None:
            return self.path, -1.0, -1.0, -1
        return self.path, self.start, self.end, self.label

    @property
    def order(self) -> tuple[str, tuple[str, float, float, int]]:
        """The sort key of rows in a manifest."""
        return self.split, self.place

    @property
    def video_name(self) -> str:
        """The given name, or the file's stem."""
        return self.name or os.path.splitext(os.path.basename(self.path))[0]

    @property
    def group_name(self) -> str:
        """The given group, or the path."""
        return self.group or self.path


@dataclass(frozen=True, kw_only=True)
class Info:
    """The header of a manifest.

    Attributes:
        root: the folder that paths are relative to.
        classes: class names; a label is a position in it.
        frames: file name template of extracted frames, such as ``img_{:05d}.jpg``; ``None`` for
            video files.
        decoded: whether every video was decoded to the end when it was indexed.
        max_damaged: share of a video's frames that might be damaged then.
        source: how the manifest was built, for a reader.
        shards: whether the videos are stored in shards, as ``vclr shard`` writes them.
        package: version of this package that wrote it.
        fingerprint: hash of paths, ids, groups, labels, splits and classes; set by the writer.
        schema: version of the file format.
    """

    root: Path
    classes: tuple[str, ...] = ()
    frames: str | None = None
    decoded: bool = False
    max_damaged: float = 0.1
    source: str = ""
    shards: bool = False
    package: str = __version__
    fingerprint: str = ""
    schema: int = SCHEMA_VERSION

    def to_json(self, file: Path) -> bytes:
        """Serialise for ``file``; a root in or below the file's folder is stored relative to it."""
        root, folder = self.root.absolute(), file.absolute().parent
        stored = root.relative_to(folder) if root.is_relative_to(folder) else root
        content = {**self.__dict__, "root": stored.as_posix(), "schema": SCHEMA_VERSION}
        return json.dumps(content).encode()

    @staticmethod
    def from_json(content: Mapping[str, object], file: Path) -> Info:
        """Read what :meth:`to_json` wrote, next to ``file``.

        Raises:
            UserError: a value is missing or of another kind.
        """
        kinds: dict[str, Any] = {"classes": list, "frames": str | None}
        kinds |= {"decoded": bool, "shards": bool, "max_damaged": float | int, "schema": int}
        values = {name: content[name] for name in Info.__dataclass_fields__ if name in content}
        classes, root = values.get("classes"), values.get("root")
        wrong = [
            name for name, value in values.items() if not isinstance(value, kinds.get(name, str))
        ]
        if wrong or not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
            raise UserError(
                f"{file} is damaged ({(wrong or ['classes'])[0]} is of another kind): make the "
                "manifest again with `vclr index`"
            )
        place = {"root": file.absolute().parent / str(root), "classes": tuple(classes)}
        return Info(**{**values, **place})  # type: ignore[arg-type]


def arrow_schema(version: int = SCHEMA_VERSION) -> pa.Schema:
    """Return the columns, in order. Label is -1, and probed values are null, where unknown.

    Args:
        version: of the file format; 2 has no damage, 1 no windows and no spans either.
    """
    import pyarrow as pa

    words = pa.dictionary(pa.int32(), pa.string())
    span = [("start", pa.float64()), ("end", pa.float64()), ("label", pa.int32())]
    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("group", words, nullable=False),
        pa.field("split", words, nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("duration", pa.float64()),
        pa.field("num_frames", pa.int32()),
        pa.field("exact", pa.bool_(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", words),
        pa.field("keyframe_interval", pa.float64()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("spans", pa.list_(pa.struct(span))),
        pa.field("damaged", pa.float64()),
    ]
    return pa.schema(fields[: {1: -4, 2: -1}.get(version)])


def fingerprint(rows: Iterable[Row], classes: Sequence[str]) -> str:
    """Return a hash of what a run depends on; sizes, times and probed values do not count."""
    fields = []
    for r in rows:
        # Missing windows and spans are left out, so that manifests of whole videos keep their hash.
        more = (r.start, r.end, r.spans) if r.start is not None or r.spans else ()
        fields.append((r.path, r.video_name, r.group_name, r.split, r.label, *more))
    return hashlib.sha256(json.dumps([list(classes), fields]).encode()).hexdigest()[:32]
