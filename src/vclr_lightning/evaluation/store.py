"""Features of videos in a folder, mapped into memory, with labels, ids and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vclr_lightning.core.arrays import map_array, map_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum, mapped_bytes
from vclr_lightning.core.reading import parse_with_checksum, read_text
from vclr_lightning.evaluation.features import VIDEO_COLUMNS, FeatureSet, segment_means

if TYPE_CHECKING:
    from vclr_lightning.core.types import Rejection

FEATURES, ROWS, ABOUT = "features.npy", "rows.arrow", "store.json"
FORMAT = 1


class FeatureStore:
    """Features of N videos in a folder, written by a feature extractor; read-only.

    Three forms: ``mean``, the average over a video's frames; ``frames``, each of its n frames;
    ``ragged``, each of its snippets, whose number differs from video to video.

    Args:
        folder: see :meth:`open`, which checks it first.
        about: content of the folder's description.
        keep: positions of the selected rows; ``None`` for all.

    Attributes:
        folder: where the files are.
        form: ``"mean"``, ``"frames"`` or ``"ragged"``.
        classes: names of the classes; a label is a position in it.
        rejected: videos that could not be read, and why; they have no row.
        provenance: where the features come from: hash of the weights, fingerprint of the manifest,
            split, sampling, transform, layer, backbone, version.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], *, keep: Tensor | None = None
    ) -> None:
        self.folder = folder
        self.form = str(about["form"])
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.rejected: list[Rejection] = list(about["rejected"])
        self.provenance: Mapping[str, Any] = about["provenance"]
        self._about = about
        self._keep = keep

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> FeatureStore:
        """Open the folder of a finished extraction.

        Args:
            folder: where the files are.
            verify: compare the features with the checksum that was taken when they were written.

        Raises:
            UserError: there are no features, or not all of them, they are damaged, or of another
                version.
        """
        folder = Path(folder)
        file = folder / ABOUT
        if not file.is_file():
            raise UserError(f"{folder} holds no features; extract them with stage=features")
        try:
            about = parse_with_checksum(read_text(file), file)
            store = cls(folder, about)
            wanted = about["format"], tuple(about["shape"]), about["videos"]
            rows, _ = map_arrow(folder / ROWS, title="table of videos", verify=verify)
            found = FORMAT, tuple(store._stored.shape), len(rows)
            if verify:
                _check(about, rows, store._stored)
                known = about.get("checksum_of_features")  # older stores have none
                if known is not None and known != checksum(mapped_bytes(folder / FEATURES)):
                    raise ValueError(f"{FEATURES} is not what was written")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"the features in {folder} are damaged ({error}); delete the folder and extract "
                "them again"
            ) from error
        if wanted != found:
            raise UserError(
                f"the features in {folder} are of another version or not whole (expected "
                f"{wanted}, found {found}); delete the folder and extract them again"
            )
        return store

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, videos={len(self)}, form={self.form!r})"

    @cached_property
    def features(self) -> Tensor:
        """``(N, F)``; in ``frames`` ``(N, n, F)``; in ``ragged`` ``(sum of m, F)``, all in a row.

        Mapped into memory where no rows are left out. In ``frames``, a video of fewer frames
        repeats its last one; ``count`` says how many are its own.
        """
        if self._keep is None:
            return self._stored
        if self.form == "ragged":
            return torch.cat([self.video(i) for i in range(len(self))])
        return self._stored[self._keep]

    @cached_property
    def mean(self) -> Tensor:
        """``(N, F)``, averaged over a video's frames or snippets."""
        if self.form == "mean":
            return self.features
        return torch.stack([self.video(i).mean(dim=0) for i in range(len(self))])

    def video(self, i: int) -> Tensor:
        """Return the features of video ``i``, in order: ``(m, F)``, m = ``count[i]``.

        In the form ``mean`` m is 1.
        """
        row = i if self._keep is None else int(self._keep[i])
        if self.form == "mean":
            return self._stored[row : row + 1]
        if self.form == "frames":
            return self._stored[row, : int(self.count[i])]
        return self._stored[int(self._offsets[row]) : int(self._offsets[row + 1])]

    @cached_property
    def label(self) -> Tensor:
        """``(N,)``, position in ``classes``, -1 for none."""
        return self._column("label")

    @cached_property
    def video_id(self) -> Tensor:
        """``(N,)``"""
        return self._column("video_id")

    @cached_property
    def group_id(self) -> Tensor:
        """``(N,)``; clips cut from one source share it."""
        return self._column("group_id")

    @cached_property
    def index(self) -> Tensor:
        """``(N,)``, row of the split's manifest."""
        return self._column("index")

    @cached_property
    def count(self) -> Tensor:
        """``(N,)``, frames or snippets that were encoded."""
        return self._column("count")

    @property
    def names(self) -> Sequence[str]:
        """Names of the videos."""
        return self._words("name")

    @property
    def paths(self) -> Sequence[str]:
        """Files of the videos, as they were when the features were extracted."""
        return self._words("path")

    @property
    def num_features(self) -> int:
        """F."""
        return int(self._stored.shape[-1])

    def labelled(self) -> FeatureStore:
        """Return the videos that have a label.

        Raises:
            UserError: there is none.
        """
        keep = self.label >= 0
        if not bool(keep.any()):
            raise UserError(
                f"none of the videos of split {self.provenance.get('split')} has a label, and this "
                "measure needs them; index a folder with a subfolder per class, or list files "
                "with labels"
            )
        return self.select(keep)

    def select(self, keep: Tensor) -> FeatureStore:
        """Return the videos where ``keep`` ``(N,)`` is true."""
        if bool(keep.all()):
            return self
        rows = torch.arange(len(self)) if self._keep is None else self._keep
        return FeatureStore(self.folder, self._about, keep=rows[keep])

    def feature_set(self, segments: int = 1) -> FeatureSet:
        """Return the features in memory, as the metrics expect them.

        Args:
            segments: parts of a video that are averaged separately; more than 1 needs the frames.

        Raises:
            UserError: several parts, but the frames were averaged when they were extracted.
        """
        if segments > 1 and self.form == "mean":
            raise UserError(
                f"the features in {self.folder} are averaged over each video, without any order;"
                " extract them with keep_frames=true"
            )
        if self.form == "mean":
            parts = self.mean[:, None]
        else:
            parts = torch.stack([segment_means(self.video(i), segments) for i in range(len(self))])
        columns = {name: getattr(self, name) for name in VIDEO_COLUMNS}
        return FeatureSet(mean=self.mean, segments=parts, **columns, rejected=self.rejected)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield what :meth:`video` returns, for each video."""
        return (self.video(i) for i in range(len(self)))

    @cached_property
    def _stored(self) -> Tensor:
        return torch.from_numpy(map_array(self.folder / FEATURES))

    @cached_property
    def _offsets(self) -> Tensor:
        counts = torch.from_numpy(self._table["count"].to_numpy(zero_copy_only=False).copy())
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        batch, _ = map_arrow(self.folder / ROWS, title="table of videos", verify=False)
        return dict(zip(batch.schema.names, batch.columns, strict=True))

    def _column(self, name: str) -> Tensor:
        values = torch.from_numpy(self._table[name].to_numpy(zero_copy_only=False).copy())
        return values if self._keep is None else values[self._keep]

    def _words(self, name: str) -> list[str]:
        words = self._table[name]
        if self._keep is not None:
            words = words.take(self._keep.numpy())
        return [str(word) for word in words.to_pylist()]


def _check(about: Mapping[str, Any], rows: Any, features: Tensor) -> None:
    """Raise ``ValueError`` if readable files contain what the extraction never writes."""
    import pyarrow as pa

    columns = [(name, pa.int64()) for name in (*VIDEO_COLUMNS, "count")]
    schema = pa.schema([*columns, ("name", pa.string()), ("path", pa.string())])
    if not rows.schema.equals(schema) or any(column.null_count for column in rows.columns):
        raise ValueError(f"{ROWS} has other columns")
    label, count = (rows.column(name).to_numpy() for name in ("label", "count"))
    if not -1 <= label.min(initial=-1) <= label.max(initial=-1) < len(about["classes"]):
        raise ValueError("a label is none of its classes")
    stored = {"mean": (2, len(rows)), "frames": (3, len(rows)), "ragged": (2, count.sum())}
    if (features.ndim, len(features)) != stored[about["form"]] or count.min(initial=0) < 0:
        raise ValueError("the numbers of features and of videos differ")
    if features.dtype != torch.float32 or not all(
        {"path", "reason"} <= r.keys() for r in about["rejected"]
    ):
        raise ValueError("its values are of other kinds")
