"""Features of finished networks, extracted once and kept."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from vclr_lightning import __version__
from vclr_lightning.core.distributed import gather_objects, rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.core.screen import is_new
from vclr_lightning.data.indexing.ensure import default_cache
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.evaluation_datasets import FramesDataset
from vclr_lightning.data.protocols import ClipTransform
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.evaluation.layers import find_layer
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.evaluation.store_assembly import assemble, replaced_store
from vclr_lightning.modules.clip_sizes import check_clip_sizes
from vclr_lightning.stages.features.extraction import Extraction
from vclr_lightning.stages.features.provenance import (
    COMPLETE,
    DAMAGED,
    RETRIED,
    described,
    digest,
    files_of,
    network_name,
    normalisation,
    stored_state,
    videos_of,
)
from vclr_lightning.stages.shared.hardware import Hardware
from vclr_lightning.stages.shared.network import pretrained_network, weights_digest

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import VideoTable
    from vclr_lightning.data.sampling import RandomWindow, SlidingWindows

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the features: raised when the same settings give other values than before."""


class FeatureExtractor:
    """Returns the features of a split's videos; extracts them once.

    A 2D network encodes frames, spread evenly over a video from the first to the last
    (Section 4.1 of the paper), or the middle one of every ``every`` frames; a 3D network encodes
    clips that begin there. Features depend on the weights' content, the videos, sampling,
    transform, layer and precision, and are looked up by a hash of these. Within a process group
    every rank has to call it.

    Args:
        data: the videos.
        weights: file of the weights; ``"none"``: as ``backbone`` is, untrained.
        backbone: the network; ``None``: the one in the file.
        untrained: use random weights instead of the file's, for comparison.
        prefix: of the network's parameter names in a file of another program.
        num_frames: n, frames (clips) of a video.
        every: instead, the middle frame of each run of this many frames.
        frames_per_clip: T, of a network of clips.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.
        windows: instead of all these, by split: the windows of one clip to take.
        transform: resizes and crops a frame.
        layer: name of the layer whose output is used, a map averaged over its positions; ``None``:
            the network's features.
        keep_frames: keep each frame's features instead of a video's average.
        normalize: scale the features of each frame (clip) to unit length before they are averaged.
        folder: keep the features in its subfolders, one for each split, instead of the cache;
            those of ``untrained`` in such subfolders of ``untrained``.
        cache_dir: the cache, by default ``~/.cache/vclr_lightning``.
        hardware: devices, and a process on each.
        chunk: frames encoded at a time.
        show: show progress bars.

    Raises:
        UserError: the weights do not fit, there is no such layer, or a number is out of its range.

    Example:
        ::

            extractor = FeatureExtractor(data=data, weights="outputs/pretrain/k400/last.ckpt")
            train, test = extractor("train"), extractor("val")
            train.mean, train.label  # (N, F), (N,)
    """

    def __init__(
        self,
        *,
        data: VideoDataModule,
        weights: str | Path,
        backbone: nn.Module | None = None,
        untrained: bool = False,
        prefix: str | None = None,
        num_frames: int = 30,
        every: int | None = None,
        frames_per_clip: int = 1,
        stride: int = 1,
        rate: float | None = None,
        windows: Mapping[str, RandomWindow | SlidingWindows] | None = None,
        transform: ClipTransform | None = None,
        layer: str | None = None,
        keep_frames: bool = False,
        normalize: bool = False,
        folder: str | Path | None = None,
        cache_dir: str | Path | None = None,
        hardware: Hardware | None = None,
        chunk: int = 256,
        show: bool = True,
    ) -> None:
        if chunk < 1:
            raise UserError(f"chunk={chunk} must be at least 1")
        self.data = data
        self.backbone = pretrained_network(
            weights, backbone, layer=layer, untrained=untrained, prefix=prefix
        )
        self.weights = f"{weights}, untrained" if untrained else str(weights)
        self.layer = layer
        if layer is not None:
            find_layer(self.backbone, layer)
        self.num_frames, self.every = num_frames, every
        self.frames_per_clip = frames_per_clip
        self.spacing: dict[str, Any] = {"stride": stride} if rate is None else {"rate": rate}
        self.windows = windows
        self.transform = transform or EvalTransform()
        if isinstance(size := getattr(self.transform, "size", None), int):
            lengths = [w.frames_per_clip for w in (windows or {}).values()] or [frames_per_clip]
            check_clip_sizes(self.backbone, [(length, size) for length in lengths])
        self.keep_frames, self.normalize = keep_frames, normalize
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder is not None and untrained:
            self.folder /= "untrained"  # beside those of the weights
        self.cache = default_cache() if cache_dir is None else Path(cache_dir).expanduser()
        self.hardware = hardware or Hardware()
        self.chunk = chunk
        self.show = show
        self._tried: set[Path] = set()
        self._digest = weights_digest(self.backbone)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have videos."""
        return tuple(name for name, table in self.data.splits.items() if len(table))

    def test_split(self, name: str | None = None) -> str:
        """Return ``name``, or by default the split to evaluate on: ``val`` or ``test``.

        Raises:
            UserError: it has no videos.
        """
        wanted = ("val", "test") if name is None else (name,)
        for split in wanted:
            if split in self.splits:
                return split
        raise UserError(
            f"there are no videos of split {' or '.join(wanted)} to measure on, only "
            f"{', '.join(self.splits)}; give lists of both splits, or hold some out "
            "(data.holdout=0.2)"
        )

    def __call__(self, split: str) -> FeatureStore:
        """Return the features of a split, extracting them where that has not been done.

        Videos that could not be read for a reason that may have passed are tried again, once.

        Raises:
            UserError: the split has no videos, none of them can be read, or ``folder`` holds
                features of another kind.
        """
        table = self.data.split(split)
        provenance = self.provenance(split)
        key = digest(provenance)
        target = self.cache / "features" / key if self.folder is None else self.folder / split
        first = rank() == 0
        about = {
            **provenance,
            "file": self.weights,
            "videos": videos_of(table),
            "package": __version__,
        }
        # Of these very features only: unfinished work of other settings does not count.
        work = target.with_name(f".{split}-{key}.part")
        if first and replaced_store(work).is_dir():  # killed while one took the other's place
            with locked(target, show=self.show):
                if not target.is_dir():
                    os.rename(replaced_store(work), target)

        def state() -> str:
            found = None
            if first:
                found = stored_state(
                    target,
                    about,
                    named=self.folder is not None,
                    retry=target not in self._tried,
                )
            return str(gather_objects(found)[0])

        if state() == COMPLETE:
            if first:
                logger.info("%s: reusing the features in %s", split, target)
        else:
            with locked(target, show=self.show) if first else nullcontext():
                found = state()  # another process may have extracted them meanwhile
                if found == DAMAGED and first:
                    shutil.rmtree(target, ignore_errors=True)
                if found != COMPLETE:
                    kept = target if found == RETRIED else None
                    self._extract(split, table, work=work, target=target, kept=kept, about=about)
            self._tried.add(target)
            gather_objects(None)  # nobody opens it before it is there
        store = FeatureStore.open(target, verify=False)  # which the first process has done
        if store.rejected and first:
            item = store.rejected[0]
            notice = (
                f"{split}: {len(store.rejected)} of {len(store.rejected) + len(store)} videos "
                "cannot be read and are left out; the first, "
                f"{item['path']}: {item['reason']}"
            )
            if is_new(notice):
                logger.warning("%s", notice)
        return store

    def provenance(self, split: str) -> dict[str, Any]:
        """Return what the features of a split depend on, as plain values."""
        table = self.data.split(split)
        sampling: dict[str, Any] = {"every": self.every}
        if self.every is None:
            sampling = {"num_frames": self.num_frames}
        if self.frames_per_clip > 1:
            sampling |= {"frames_per_clip": self.frames_per_clip, **self.spacing}
        if (windows := self._windows(split)) is not None:
            sampling = described(windows)
        return {
            "weights": self._digest,
            "network": network_name(self.backbone),
            "manifest": table.fingerprint,
            "files": files_of(table),
            "reader": type(self.data.reader).__name__,
            "split": split,
            "sampling": sampling,
            "transform": described(self.transform),
            "layer": self.layer,
            "form": f"{self._form} of unit vectors" if self.normalize else self._form,
            "precision": self.hardware.precision,
            "version": VERSION,
            **normalisation(self.backbone),
        }

    @property
    def _form(self) -> str:
        if not self.keep_frames:
            return "mean"
        return "frames" if self.every is None and self.windows is None else "ragged"

    def _windows(self, split: str) -> RandomWindow | SlidingWindows | None:
        if self.windows is None:
            return None
        if split not in self.windows:
            raise UserError(
                f"features.windows has those of {', '.join(self.windows)}, and none of split "
                f"{split}; give features.windows.{split}"
            )
        return self.windows[split]

    def _extract(
        self,
        split: str,
        table: VideoTable,
        *,
        work: Path,
        target: Path,
        kept: Path | None,
        about: Mapping[str, Any],
    ) -> None:
        """Encode with all ranks; the first one makes the store."""
        if rank() == 0:
            logger.info("%s: extracting features of %d videos into %s", split, len(table), target)
        windows = self._windows(str(about["split"]))
        size = self.data.eval_batch_size if self.every is None and windows is None else 1
        rows, devices = range(len(table)), self.hardware.each
        batches = Extraction(
            dataset=FramesDataset(
                manifest=table,
                reader=self.data.reader,
                transform=self.transform,
                num_frames=self.num_frames,
                every=self.every,
                frames_per_clip=self.frames_per_clip,
                **self.spacing,
                windows=windows,
            ),
            backbone=self.backbone,
            layer=self.layer,
            keep_frames=self.keep_frames,
            normalize=self.normalize,
            blocks=[tuple(rows[start : start + size]) for start in range(0, len(rows), size)],
            workers=self.data.workers(len(devices)),
            hardware=self.hardware,
            devices=devices,
            chunk=self.chunk,
            work=work,
            kept=kept,
            description=f"features, {split}",
            show=self.show,
        ).run()
        if rank() != 0:
            return
        rejected = sum(len(batch.rejected) for batch in batches)
        if kept is not None and rejected >= len(FeatureStore.open(kept, verify=False).rejected):
            shutil.rmtree(work, ignore_errors=True)
            return
        names = getattr(table, "name", lambda i: table.path(i).stem)
        assemble(
            batches,
            work=work,
            target=target,
            form=self._form,
            frames=self.num_frames,
            names=[names(i) for i in range(len(table))],
            paths=[str(table.path(i)) for i in range(len(table))],
            classes=getattr(table, "classes", ()),
            provenance=about,
        )
