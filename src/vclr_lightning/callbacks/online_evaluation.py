"""Evaluate the features on held-out videos during training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sized
from statistics import fmean
from typing import Any, Literal, cast

import torch
from torch import Tensor

from vclr_lightning.callbacks.epoch_ends import EpochEnds
from vclr_lightning.callbacks.held_out_videos import (
    drawn_rows,
    encode_of,
    gathered,
    has_labels,
    loader_of,
)
from vclr_lightning.callbacks.run_log import note
from vclr_lightning.core.distributed import failing_together, gather_objects, rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.core.random import random_state_kept
from vclr_lightning.core.screen import track
from vclr_lightning.core.types import Batch, FramesBatch
from vclr_lightning.evaluation.encoders import Encode, evaluation_mode
from vclr_lightning.evaluation.features import extract_features
from vclr_lightning.evaluation.pair_features import pair_features
from vclr_lightning.functional.knn import knn_accuracy
from vclr_lightning.functional.retrieval import chance_recall, instance_recall

logger = logging.getLogger(__name__)


class OnlineEvaluation(CheckedCallback):
    """Logs R@1 of the features on held-out videos: at the start, every few epochs, at the end.

    ``val/instance_r1``: of two independent draws of each held-out video, augmented as in training
    and averaged over their clips, how often the other draw is the nearest of all; the mean of
    ``draws`` such pairs, without labels. ``val/knn_r1``: how often the nearest video (cosine,
    averaged features) has the same label. Beside them their chance levels ``val/instance_chance``
    and ``val/knn_chance``.

    Works with any LightningModule that can encode frames, and any data module with the loaders
    below; each rank encodes its part. Training modes and global random generators are restored.

    Values from before the first step are logged at step 0, also as ``start/val/instance_r1`` and
    ``start/val/knn_r1``; they are not measured again on resume.

    Args:
        every_n_epochs, every_n_steps: between two evaluations; optimizer steps, where given.
        at_start: evaluate before the first step, too.
        instance: evaluate instance retrieval.
        draws: pairs of draws of each video; of few videos, one pair says little.
        knn: evaluate k-NN; ``"auto"``: where the held-out videos and the gallery have labels.
        gallery: split of the neighbours: ``"train"``, or ``"val"`` without the video's own group.
        gallery_videos, val_videos: number of videos of the gallery ``"train"`` and of ``"val"`` to
            use, drawn once by ``seed``; ``None`` for all. Every evaluation decodes them.
        seed: of the drawn videos.
        encode: frames to features; by default the module's method ``encode``.
        views: the two draws to compare.
        chunk: frames encoded at a time.
        show: show progress bars.

    Shape:
        - encode: ``(M, C, T, H, W)`` uint8 to ``(M, F)``
        - for ``instance``, ``datamodule.pair_loader("val")`` yields
          :class:`~vclr_lightning.core.types.Batch` with the ``views`` ``(B, S, C, T, H, W)``; for
          a further pair it takes ``draw``, its number
        - for ``knn``, ``datamodule.frames_loader(split)`` yields
          :class:`~vclr_lightning.core.types.FramesBatch`
        - for a part of the videos, both take ``rows``; ``datamodule.manifest(split)`` has a length

    Attributes:
        start: what was measured before the first step, by name.

    Raises:
        UserError: there are no held-out videos or no labels, or the module cannot encode.

    Example:
        With a module of another package::

            online = OnlineEvaluation(encode=lambda x: net(x.squeeze(2).float() / 255))
            Trainer(callbacks=[online]).fit(module, datamodule)
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        at_start: bool = True,
        instance: bool = True,
        draws: int = 1,
        knn: bool | Literal["auto"] = "auto",
        gallery: Literal["train", "val"] = "train",
        gallery_videos: int | None = None,
        val_videos: int | None = None,
        seed: int = 0,
        encode: Encode | None = None,
        views: tuple[str, str] = ("anchor", "positive"),
        chunk: int = 256,
        show: bool = True,
    ) -> None:
        super().__init__()
        if knn not in (True, False, "auto"):
            raise UserError(f"knn={knn} of the evaluation must be true, false or auto")
        if gallery not in ("train", "val"):
            raise UserError(f"gallery={gallery} of the evaluation must be train or val")
        for name, number, least in (
            ("draws", draws, 1),
            ("gallery_videos", gallery_videos, 1),
            ("val_videos", val_videos, 1),
            ("seed", seed, 0),
            ("chunk", chunk, 1),
        ):
            if number is not None and number < least:
                raise UserError(f"{name}={number} of the evaluation must be {least} or more")
        self.due = EpochEnds(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        self.at_start = at_start
        self.instance = instance
        self.draws = draws
        self.knn = knn
        self.gallery = gallery
        self.limits = {"train": gallery_videos, "val": val_videos}
        self.seed = seed
        self.encode = encode
        self.views = (str(views[0]), str(views[1]))
        self.chunk = chunk
        self.show = show
        self.start: dict[str, float] = {}
        self._pairs: list[Iterable[Batch]] = []
        self._frames: dict[str, Iterable[FramesBatch]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the loaders, so that missing videos or labels are reported before training."""
        data = cast(Any, getattr(trainer, "datamodule", None))
        encode_of(pl_module, self.encode)
        self._pairs, self._frames = [], {}
        listed, knn = callable(getattr(data, "manifest", None)), self.knn
        try:
            if knn == "auto":
                knn = listed and all(has_labels(data.manifest(s)) for s in ("val", self.gallery))
            pairs = loader_of(data, "pair_loader") if self.instance else None
            frames = loader_of(data, "frames_loader") if knn else None
            used = ["val", self.gallery] if knn else ["val"] if self.instance else []
            rows = {
                split: drawn_rows(data, split, limit=self.limits[split], seed=self.seed)
                for split in dict.fromkeys(used)
            }
            if pairs is not None:
                numbers = [{"draw": d} if d else {} for d in range(self.draws)]
                self._pairs = [pairs("val", views=self.views, **rows["val"], **n) for n in numbers]
            if frames is not None:
                self._frames = {split: frames(split, **rows[split]) for split in sorted(rows)}
        except UserError as error:
            raise UserError(
                f"the evaluation during training lacks something: {error}; hold videos out "
                "(data.holdout=0.05), or leave it out (callbacks.online=null)"
            ) from error
        for split in self._frames if listed else ():
            table, chosen = data.manifest(split), rows[split].get("rows")
            if not has_labels(table, chosen):
                raise UserError(
                    f"none of the {len(chosen or table)} videos of {split} has a label, which k-NN "
                    "during training needs; leave it out (callbacks.online.knn=false)"
                )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.at_start or trainer.current_epoch or trainer.global_step:
            return
        values = self.evaluate(pl_module, show=trainer.is_global_zero)
        self.start = {f"start/{name}": v for name, v in values.items() if name.endswith("r1")}
        note(f"before training: {', '.join(f'{name} {v:.5g}' for name, v in values.items())}")
        # Lightning would keep what a callback logs now until the end of the epoch.
        for sink in trainer.loggers if trainer.is_global_zero else ():
            sink.log_metrics({**values, **self.start, "epoch": 0}, step=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.due(trainer):
            return
        for name, value in self.evaluate(pl_module, show=trainer.is_global_zero).items():
            # All ranks have the same value; without sync_dist Lightning warns.
            pl_module.log(name, value, prog_bar=name.endswith("r1"), sync_dist=True, batch_size=1)

    @property
    def state_key(self) -> str:
        """Distinguishes several evaluations in a checkpoint."""
        return f"{type(self).__name__}{self.instance, self.knn, self.gallery, *self.views}"

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start = dict(state_dict.get("start", {}))

    def evaluate(self, pl_module: LightningModule, *, show: bool = False) -> dict[str, float]:
        """Return the metrics of the module in its present state; every rank has to call it."""
        encode, device = encode_of(pl_module, self.encode), pl_module.device
        values: dict[str, float] = {}
        show = show and self.show
        try:
            with random_state_kept(), evaluation_mode(pl_module), torch.no_grad():
                if self._pairs:
                    found = [self._instance(pair, encode, device, show) for pair in self._pairs]
                    values["val/instance_r1"] = fmean(r1 for r1, _ in found)
                    values["val/instance_chance"] = fmean(1 / videos for _, videos in found)
                if self._frames:
                    values |= self._knn(encode, device, show)
        except UserError as error:
            raise UserError(f"the evaluation during training: {error}") from error
        return values

    def _instance(
        self, pairs: Iterable[Batch], encode: Encode, device: torch.device, show: bool
    ) -> tuple[float, int]:
        with failing_together():
            batches = track(pairs, "instance retrieval", show=show)
            own = pair_features(batches, encode, views=self.views, device=device, chunk=self.chunk)
        first, second = gathered(own)
        return instance_recall(first, second), len(first)

    def _knn(self, encode: Encode, device: torch.device, show: bool) -> dict[str, float]:
        found: dict[str, list[Tensor]] = {}
        for split, loader in self._frames.items():
            own, problem, title = [], None, f"features, {split}"
            options: dict[str, Any] = {"device": device, "chunk": self.chunk, "show": show}
            try:
                every = extract_features(encode, loader, segments=1, description=title, **options)
                features = every.labelled()
                own = [features.mean, features.label, features.group_id]
            except UserError as error:  # the others may still have videos
                problem = str(error)
            problems = gather_objects(problem)
            if None not in problems:
                raise UserError(str(problems[0]))
            found[split] = gathered(own)
            # A rank may have none of few videos, which is no problem.
            if problem is not None and not (isinstance(loader, Sized) and len(loader) == 0):
                logger.warning("online evaluation, %s, rank %d: %s", split, rank(), problem)
        (queries, labels, groups), (gallery, *of_gallery) = found["val"], found[self.gallery]
        facts: dict[str, Any] = {"query_labels": labels, "gallery_labels": of_gallery[0]}
        if self.gallery == "val":
            facts |= {"query_groups": groups, "gallery_groups": of_gallery[1]}
        return {
            "val/knn_r1": knn_accuracy(queries, gallery, **facts),
            "val/knn_chance": chance_recall(**facts, ks=(1,))[1],
        }
