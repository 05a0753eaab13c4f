"""All data of a run: training batches, and held-out videos for evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from vclr_lightning.core.distributed import is_rank_zero
from vclr_lightning.core.errors import UserError, check_named
from vclr_lightning.core.lightning import LightningDataModule
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.loading.epochs import EpochBatches, rank_shard
from vclr_lightning.data.loading.evaluation_datasets import FramesDataset
from vclr_lightning.data.loading.finishing import finish_batch
from vclr_lightning.data.loading.loader import BatchLoader, EpochLoader, restore_position
from vclr_lightning.data.loading.view_transforms import check_augmentation, is_transform
from vclr_lightning.data.loading.views import long_enough, readers_of
from vclr_lightning.data.loading.workers import StartMethod, WorkerOptions, default_num_workers
from vclr_lightning.data.transforms.backends import Augment, choose

if TYPE_CHECKING:
    from vclr_lightning.data.protocols import (
        ClipTransform,
        Sampler,
        SplitTransform,
        VideoReader,
        VideoTable,
    )

logger = logging.getLogger(__name__)


class VideoDataModule(LightningDataModule):
    """Videos for training and, with ``val``, for evaluation on held-out ones.

    What is loaded depends on ``seed``, the epoch and the manifest alone: not on the number of
    ranks, on ``num_workers``, or on how workers are started.

    Args:
        train: the training videos.
        val: held-out videos.
        samplers: by name; decide which frames the views hold. Without any there is no training.
        transform: augments a clip.
        transforms: of views that have another one, also of another size.
        share: sharing keys by view, instead of the samplers' (``ViewSpec.share``): clips of one
            key and transform are augmented together; ``None``: each by itself.
        pair_sampler: yields the views ``anchor`` and ``positive``, two draws of a video, for
            :meth:`pair_loader`; by default ``samplers`` have to.
        eval_transform: resizes and crops a frame for evaluation.
        reader: opens videos.
        batch_size: videos per optimizer step, over all ranks and accumulated micro-batches.
        num_workers: loading processes per rank; ``None`` for the available cores per rank, less
            one.
        seed: of order, draws and augmentation.
        views: names of the views to load; ``None`` for the module's ``required_views`` or, if it
            has none, all that the samplers yield.
        start_method: of the workers: fork, spawn or forkserver; ``None`` for the system's default.
        prefetch_factor: batches that each worker loads ahead.
        timeout: seconds that a batch may take before stuck loading processes are ended.
        pin_memory: page-locked batches; ``None``: if training runs on CUDA.
        max_rejected_share: share of the training videos that may be unreadable.
        eval_frames: frames, or clips, per video in :meth:`frames_loader`.
        frames_per_clip: T of these clips; 1 for networks that see single pictures.
        frame_stride: distance between the frames of a clip.
        frame_rate: frames per second of a clip, instead of ``frame_stride``.
        eval_batch_size: videos per batch and rank in :meth:`pair_loader` and
            :meth:`frames_loader`.
        splits: videos for the evaluation of trained networks, by name: the splits as published,
            from which nothing is held out; by default ``train`` and ``val``.
        augment: who computes the augmentation: the workers with ``"torch"`` or ``"opencv"``, or
            the ``"device"``: workers only crop, and the rest is done for whole batches on the
            training device. ``None``: the transform as it is. All draw the same parameters. Of
            ``transforms``, those for which it is not possible are left as they are.

    Attributes:
        splits, reader, frames_per_clip, eval_batch_size: see above.
        finishing_time: seconds spent so far on finishing the augmentation of batches.

    Raises:
        UserError: a number is out of its range, or ``augment`` is not for this transform; from
            :meth:`train_dataloader`, the batch cannot be divided evenly, there are too few videos,
            the views do not fit together, or the module in training reads a view or target that
            there is not.
    """

    def __init__(
        self,
        *,
        train: VideoTable,
        val: VideoTable | None = None,
        samplers: Mapping[str, Sampler] | None,
        transform: ClipTransform,
        transforms: Mapping[str, ClipTransform] | None = None,
        share: Mapping[str, str | None] | None = None,
        pair_sampler: Sampler | None = None,
        eval_transform: ClipTransform,
        reader: VideoReader,
        batch_size: int,
        num_workers: int | None = None,
        seed: int = 0,
        views: Collection[str] | None = None,
        start_method: StartMethod | None = None,
        prefetch_factor: int = 2,
        timeout: float = 1200.0,
        pin_memory: bool | None = None,
        max_rejected_share: float = 0.05,
        eval_frames: int = 30,
        frames_per_clip: int = 1,
        frame_stride: int = 1,
        frame_rate: float | None = None,
        eval_batch_size: int = 8,
        splits: Mapping[str, VideoTable] | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("eval_frames", eval_frames, 1),
            ("frames_per_clip", frames_per_clip, 1),
            ("frame_stride", frame_stride, 1),
            ("eval_batch_size", eval_batch_size, 1),
        ):
            if value < least:
                raise UserError(f"{name}={value} must be at least {least}")
        if not 0 <= max_rejected_share <= 1:
            raise UserError(f"max_rejected_share={max_rejected_share} must be between 0 and 1")
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.seed = seed
        self.max_rejected_share = max_rejected_share
        self._augment = augment
        self._pair_sampler = pair_sampler
        self.draw_with(samplers=samplers, transform=transform, transforms=transforms, share=share)
        self._eval_transform = eval_transform
        self.reader = reader
        self._num_workers, self._pin_memory = num_workers, pin_memory
        self._options = WorkerOptions(
            num_workers=num_workers or 0,
            start_method=start_method,
            prefetch_factor=prefetch_factor,
            timeout=timeout,
        )
        self._views = views
        self.frames_per_clip = frames_per_clip
        self._eval_clips: dict[str, Any] = {
            "num_frames": eval_frames,
            "frames_per_clip": frames_per_clip,
            "stride": frame_stride,
            "rate": frame_rate,
        }
        self.eval_batch_size = eval_batch_size
        held = {} if val is None else {"val": val}
        self.splits = dict(splits) if splits is not None else {"train": train, **held}
        self._train_loader: EpochLoader | None = None
        self.finishing_time = 0.0

    def draw_with(
        self,
        *,
        samplers: Mapping[str, Sampler] | None,
        transform: ClipTransform,
        transforms: Mapping[str, ClipTransform] | None = None,
        share: Mapping[str, str | None] | None = None,
    ) -> None:
        """Replace samplers and transforms of the training videos.

        Raises:
            UserError: one is no transform, or ``augment`` is not for it.
        """
        check_named("data", {"transform": transform}, what="transform", fits=is_transform)
        check_augmentation(transforms=transforms, share=share)
        self._samplers, self._share = samplers or {}, share
        self._transform = choose(transform, self._augment)
        self._transforms = {
            view: choose(one, self._augment, strict=False)
            for view, one in (transforms or {}).items()
        }

    def setup(self, stage: str) -> None:
        """Check the views before anything is loaded."""
        if stage == "fit":
            self.train_dataset(*self._needed())

    def train_dataloader(self) -> EpochLoader:
        """Return batches (:class:`~vclr_lightning.core.types.Batch`) of this rank.

        With Lightning's ``overfit_batches``, all epochs equal epoch 0, including the frames drawn.
        """
        trainer = self.trainer
        dataset = self.train_dataset(*self._needed())
        batches = EpochBatches(
            len(self.train),
            batch_size=self.batch_size,
            seed=self.seed,
            **self._ranks(),
            accumulate=trainer.accumulate_grad_batches if trainer else 1,
            fixed_epoch=0 if getattr(trainer, "overfit_batches", 0) else None,
        )
        loader = EpochLoader(dataset, batches, self.workers(persistent=True))
        if trainer is not None:
            loader.on_start = partial(restore_position, trainer, loader.batch_sampler)
        self._train_loader = loader
        return loader

    def train_dataset(
        self, views: Collection[str] | None = None, targets: Collection[str] = ()
    ) -> VideoDataset:
        """Return the training samples with these views (``None``: all), by ``(epoch, row)``.

        Videos with fewer frames than the samplers need leave :attr:`train`, where that is known.

        Raises:
            UserError: the views do not fit together, a target is missing, or no video is left.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        dataset = self._dataset(
            views,
            targets=targets,
            readers=readers_of(module),
            begin_only=self._augment == "device",
        )
        least = dataset.views.min_frames
        long = long_enough(self.train, least)
        if long.all() or not hasattr(self.train, "select"):
            return dataset
        short = f"{len(long) - long.sum()} of {len(long)} training videos have fewer than {least}"
        if not long.any():
            needs = [n for n, s in self._samplers.items() if getattr(s, "min_frames", 1) == least]
            raise UserError(
                f"{short} frames, which the samplers {', '.join(needs)} need; take shorter clips "
                "(frames_per_clip, frame_stride) or other videos, or lower min_frames of a sampler "
                "that has it (min_frames=1 keeps all videos)"
            )
        if is_rank_zero():
            logger.info("%s frames, which samplers need, and are left out", short)
        self.train = self.train.select(long)
        return dataset.replaced(manifest=self.train)

    def seen_loader(self, rows: Sequence[int], views: Collection[str] | None = None) -> BatchLoader:
        """Return what training sees of these rows of :attr:`train` in epoch 0.

        See :meth:`pair_loader`.
        """
        return self._evaluation_loader(self._dataset(views, replace=False), self._keys(rows))

    def pair_loader(
        self,
        split: str = "val",
        views: Collection[str] = ("anchor", "positive"),
        *,
        rows: Sequence[int] | None = None,
        draw: int = 0,
    ) -> BatchLoader:
        """Return the same two independent draws of each video each time, augmented as in training.

        Batches are :class:`~vclr_lightning.core.types.Batch` in the manifest's order. Each rank
        gets a contiguous part of the videos, of equal length up to one; a video that cannot be
        read is left out and listed in ``rejected``.

        Args:
            split: ``"train"`` or ``"val"``.
            views: names of the views to load.
            rows: of the manifest, in this order; ``None`` for all.
            draw: number of the pair; each draws anew.

        Raises:
            UserError: there is no such split, or ``pair_sampler`` does not yield these views.
        """
        manifest, sampler = self.manifest(split), self._pair_sampler
        if sampler is None:
            dataset = self._dataset(views, manifest=manifest, replace=False)
        else:
            dataset = VideoDataset(
                manifest=manifest,
                reader=self.reader,
                samplers={"pair_sampler": sampler},
                transform=self._transform,
                views=views,
                seed=self.seed,
                replace=False,
            )
        keys = [(draw, row) for row in self._shard(manifest, rows)]
        return self._evaluation_loader(dataset, keys)

    def frames_loader(
        self, split: str = "val", *, rows: Sequence[int] | None = None, whole: bool = False
    ) -> BatchLoader:
        """Return evenly spaced frames (:class:`~vclr_lightning.core.types.FramesBatch`).

        Arguments, order and division among ranks are those of :meth:`pair_loader`.

        Args:
            split: of which videos.
            rows: of these.
            whole: of the split as in :attr:`splits`, which for ``"train"`` may have more videos
                than are trained on.
        """
        manifest = self.split(split) if whole else self.manifest(split)
        dataset = FramesDataset(
            manifest=manifest,
            reader=self.reader,
            transform=self._eval_transform,
            **self._eval_clips,
        )
        return self._evaluation_loader(dataset, self._shard(manifest, rows))

    def manifest(self, split: str) -> VideoTable:
        """Return the videos of ``"train"``, ``"val"`` or another split; else :class:`UserError`."""
        manifest = {"train": self.train, "val": self.val}.get(split, self.splits.get(split))
        if manifest is None:
            held = "" if self.val is None else " and val"
            raise UserError(f"there are no {split} videos in this data module; it has train{held}")
        return manifest

    def split(self, name: str) -> VideoTable:
        """Return the videos of one of :attr:`splits`; :class:`UserError` if there are none."""
        if not self.splits.get(name):
            there = ", ".join(name for name, table in self.splits.items() if table) or "none"
            raise UserError(f"there are no videos of split {name!r}; there is {there}")
        return self.splits[name]

    def workers(self, processes: int | None = None, *, persistent: bool = False) -> WorkerOptions:
        """Return how each of ``processes`` (by default, the trainer's) loads samples."""
        trainer, number, pin = self.trainer, self._num_workers, self._pin_memory
        if number is None:
            devices = trainer.num_devices if trainer else 1
            number = default_num_workers(devices if processes is None else processes)
        if pin is None:
            on_cuda = trainer is None or trainer.strategy.root_device.type == "cuda"
            pin = on_cuda and torch.cuda.is_available()
        return replace(self._options, num_workers=number, pin_memory=pin, persistent=persistent)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int = 0
    ) -> Any:
        """Move a batch to ``device`` and finish its augmentation there.

        Called by Lightning; a custom training loop must call it for each training batch.
        """
        if isinstance(batch, Mapping) and "begun" in batch:
            begun = time.perf_counter()
            transforms = {
                view: self._transforms.get(view, self._transform) for view in batch["begun"]
            }
            finished = finish_batch(batch, cast("dict[str, SplitTransform]", transforms), device)
            self.finishing_time += time.perf_counter() - begun
            return finished
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def teardown(self, stage: str) -> None:
        """Stop the workers."""
        if self._train_loader is not None:
            self._train_loader.close()
            self._train_loader = None

    def state_dict(self) -> dict[str, Any]:
        """Return what must be the same when training resumes."""
        fingerprint = self.train.fingerprint
        return {"batch_size": self.batch_size, "seed": self.seed, "train": fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse to resume with other data than the checkpoint was trained on.

        Raises:
            UserError: ``batch_size``, ``seed`` or the training videos differ.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        for name, now in self.state_dict().items():
            if state[name] != now:
                what = "other training videos" if name == "train" else f"{name}={state[name]}"
                raise UserError(
                    f"the checkpoint was trained with {what}, this run has "
                    f"{'the manifest ' if name == 'train' else f'{name}='}{now}: resume with the "
                    "same, or start a new run from the checkpoint's weights"
                )

    def _needed(self) -> tuple[Collection[str] | None, Collection[str]]:
        """Return the views and targets that the module in training reads, after a check."""
        module = None if self.trainer is None else self.trainer.lightning_module
        views = getattr(module, "required_views", None)
        targets = getattr(module, "required_targets", ())
        if self._views is None or views is None:
            return views if self._views is None else self._views, targets
        if missing := sorted(set(views) - set(self._views)):
            raise UserError(
                f"views={sorted(self._views)} leaves out {', '.join(missing)}, which the module "
                "in training reads; add it, or leave views to the module"
            )
        return self._views, targets

    def _dataset(self, views: Collection[str] | None, **options: Any) -> VideoDataset:
        given = {
            "manifest": self.train,
            "reader": self.reader,
            "samplers": self._samplers,
            "transform": self._transform,
            "transforms": self._transforms,
            "share": self._share,
            "views": views,
            "seed": self.seed,
        }
        return VideoDataset(**{**given, **options})

    @staticmethod
    def _keys(rows: Sequence[int]) -> list[tuple[int, int]]:
        return [(0, row) for row in rows]

    def _evaluation_loader(self, dataset: Any, keys: list[Any]) -> BatchLoader:
        size = self.eval_batch_size
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        return BatchLoader(dataset, batches, self.workers())

    def _shard(self, manifest: VideoTable, rows: Sequence[int] | None) -> list[int]:
        chosen = range(len(manifest)) if rows is None else rows
        return [chosen[i] for i in rank_shard(len(chosen), **self._ranks())]

    def _ranks(self) -> dict[str, int]:
        trainer = self.trainer
        return {"world_size": trainer.world_size, "rank": trainer.global_rank} if trainer else {}
