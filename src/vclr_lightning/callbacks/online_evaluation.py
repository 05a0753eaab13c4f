"""Watch what the features are worth while they are trained, on videos held out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Sized
from typing import Any, Literal, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vclr_lightning.callbacks.held_out import gather, loader_of
from vclr_lightning.core.distributed import gather_objects, rank
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator, random_state, set_random_state
from vclr_lightning.core.screen import track
from vclr_lightning.core.types import Batch, FramesBatch
from vclr_lightning.evaluation.encoders import Encode, evaluation_mode
from vclr_lightning.evaluation.features import extract_features
from vclr_lightning.functional.knn import knn_accuracy
from vclr_lightning.functional.retrieval import chance_recall, instance_recall

logger = logging.getLogger(__name__)


class OnlineEvaluation(Callback):
    """Logs R@1 of the features on held-out videos after every few epochs, and after the last.

    ``val/instance_r1``: two independent draws of each unseen video, augmented as in training, each
    the average of its clips' features: how often the other draw is the nearest of all. It needs no
    labels. ``val/knn_r1``: how often the nearest video (cosine, averaged features) has the label.
    Beside them ``val/instance_chance`` and ``val/knn_chance``, what no information reaches.

    Works with any LightningModule that can encode frames, and any data module with the loaders
    below; each rank encodes its part. The module's training modes and the global random generators
    are left as they were.

    Args:
        every_n_epochs: epochs between two evaluations.
        instance: measure instance retrieval.
        knn: measure k-NN; ``"auto"``: where the held-out videos and the gallery have labels.
        gallery: where the neighbours are: ``"train"``, or ``"val"``, where those of the video's
            own group do not count.
        gallery_videos: take this many videos of ``"train"``, drawn once by ``seed``; ``None`` for
            all. Every evaluation decodes them.
        val_videos: measure this many of the held-out videos, drawn once by ``seed``; ``None`` for
            all.
        seed: of which videos are taken.
        encode: frames to features; by default the module's own method ``encode``.
        views: the two draws to compare.
        chunk: frames encoded at a time.
        show: show progress bars.

    Shape:
        - encode: ``(M, C, T, H, W)`` uint8 to ``(M, F)``
        - ``datamodule.pair_loader("val")`` yields :class:`~vclr_lightning.core.types.Batch` with
          the ``views`` ``(B, S, C, T, H, W)``; needed for ``instance``
        - ``datamodule.frames_loader(split)`` yields
          :class:`~vclr_lightning.core.types.FramesBatch`; needed for ``knn``
        - where ``gallery_videos`` or ``val_videos`` is given, both take ``rows``, and
          ``datamodule.manifest(split)`` has a length

    Raises:
        UserError: there are no held-out videos or no labels, or the module cannot encode.

    Example:
        With a module that is not of this package::

            online = OnlineEvaluation(
                every_n_epochs=5, encode=lambda x: my_module.net(x.squeeze(2).float() / 255)
            )
            Trainer(callbacks=[online]).fit(my_module, datamodule)
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        instance: bool = True,
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
        if every_n_epochs < 1:
            raise UserError(f"every_n_epochs={every_n_epochs} of the evaluation must be 1 or more")
        if knn not in (True, False, "auto"):
            raise UserError(f"knn={knn} of the evaluation must be true, false or auto")
        if gallery not in ("train", "val"):
            raise UserError(f"gallery={gallery} of the evaluation must be train or val")
        for name, number in (("gallery_videos", gallery_videos), ("val_videos", val_videos)):
            if number is not None and number < 1:
                raise UserError(f"{name}={number} of the evaluation must be 1 or more")
        if seed < 0:
            raise UserError(f"seed={seed} of the evaluation must be 0 or more")
        if chunk < 1:
            raise UserError(f"chunk={chunk} of the evaluation must be 1 or more")
        first, second = views
        self.every_n_epochs = every_n_epochs
        self.instance = instance
        self.knn = knn
        self.gallery = gallery
        self.limits = {"train": gallery_videos, "val": val_videos}
        self.seed = seed
        self.encode = encode
        self.views = (str(first), str(second))
        self.chunk = chunk
        self.show = show
        self._pairs: Iterable[Batch] | None = None
        self._frames: dict[str, Iterable[FramesBatch]] = {}
        self._said: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the loaders, so that what is missing is missing before training."""
        data = cast(Any, getattr(trainer, "datamodule", None))
        self._encode_of(pl_module)
        self._pairs, self._frames = None, {}
        try:
            if self.instance:
                self._pairs = loader_of(data, "pair_loader")(
                    "val", views=self.views, **self._limit(data, "val")
                )
            if self._wants_knn(data):
                for split in sorted({"val", self.gallery}):
                    self._frames[split] = loader_of(data, "frames_loader")(
                        split, **self._limit(data, split)
                    )
        except UserError as error:
            raise UserError(
                f"the evaluation during training lacks something: {error}; hold videos out "
                "(data.holdout=0.05), or leave it out (callbacks.online=null)"
            ) from error
        for looked_at in self._frames:
            self._check_labels(data, looked_at, **self._limit(data, looked_at))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        for name, value in self.evaluate(pl_module, show=trainer.is_global_zero).items():
            # All ranks have the same value; without sync_dist Lightning warns.
            pl_module.log(name, value, prog_bar=name.endswith("r1"), sync_dist=True, batch_size=1)

    def evaluate(self, pl_module: LightningModule, *, show: bool = False) -> dict[str, float]:
        """Return the measures of the module as it is; every rank has to call it."""
        encode, device = self._encode_of(pl_module), pl_module.device
        show = show and self.show
        before = random_state()
        try:
            with evaluation_mode(pl_module), torch.no_grad():
                values: dict[str, float] = {}
                if self._pairs is not None:
                    values |= self._instance(encode, device, show)
                if self._frames:
                    values |= self._knn(encode, device, show)
        finally:
            set_random_state(before)
        return values

    def _instance(self, encode: Encode, device: torch.device, show: bool) -> dict[str, float]:
        draws: dict[str, list[Tensor]] = {view: [] for view in self.views}
        assert self._pairs is not None
        problem = None
        try:
            for batch in track(self._pairs, "instance retrieval", show=show):
                for view, features in draws.items():
                    clips = batch["views"][view]  # (B, n, C, T, H, W)
                    if not len(clips):
                        continue
                    flat = clips.flatten(0, 1).to(device)
                    encoded = torch.cat([encode(p).float() for p in torch.split(flat, self.chunk)])
                    features.append(encoded.view(*clips.shape[:2], -1).mean(dim=1).cpu())
        except UserError as error:  # others wait for what this rank found
            problem = str(error)
        if problems := [p for p in gather_objects(problem) if p is not None]:
            raise UserError(f"the evaluation during training: {problems[0]}")
        first, second = gather([torch.cat(features) for features in draws.values() if features])
        return {
            "val/instance_r1": instance_recall(first, second),
            "val/instance_chance": 1 / len(first),
        }

    def _knn(self, encode: Encode, device: torch.device, show: bool) -> dict[str, float]:
        found: dict[str, list[Tensor]] = {}
        for split, loader in self._frames.items():
            try:
                features = extract_features(
                    encode,
                    loader,
                    segments=1,
                    device=device,
                    chunk=self.chunk,
                    show=show,
                    description=f"features, {split}",
                )
                part = features.labelled()
                own = [part.mean, part.label, part.group_id]
                problem = None
            except UserError as error:  # others wait for what this rank found
                own, problem = [], str(error)
            problems = gather_objects(problem)
            if None not in problems:
                raise UserError(f"the evaluation during training: {problems[0]}")
            found[split] = gather(own)
            # Of few videos none may be this rank's, which is no problem.
            none_here = isinstance(loader, Sized) and len(loader) == 0
            if problem is not None and not none_here:
                logger.warning(
                    "evaluation during training, %s, rank %d: %s", split, rank(), problem
                )
        queries, query_labels, query_groups = found["val"]
        gallery, gallery_labels, gallery_groups = found[self.gallery]
        facts: dict[str, Any] = {"query_labels": query_labels, "gallery_labels": gallery_labels}
        if self.gallery == "val":
            facts |= {"query_groups": query_groups, "gallery_groups": gallery_groups}
        return {
            "val/knn_r1": knn_accuracy(queries, gallery, **facts),
            "val/knn_chance": chance_recall(**facts, ks=(1,))[1],
        }

    def _encode_of(self, pl_module: LightningModule) -> Encode:
        encode = self.encode or getattr(pl_module, "encode", None)
        if not callable(encode):
            raise UserError(
                f"{type(pl_module).__name__} has no method encode(frames), which the evaluation "
                "during training needs; add it, or give OnlineEvaluation an encode"
            )
        return cast(Encode, encode)

    def _limit(self, data: Any, split: str) -> dict[str, list[int]]:
        """The rows to take of a split, said once, if these are not all."""
        limit = self.limits[split]
        videos = 0 if limit is None else len(data.manifest(split))
        if limit is None or limit >= videos:
            return {}
        if split not in self._said and rank() == 0:
            logger.info(
                "evaluation during training: %d of %d videos of %s, drawn with seed %d",
                *(limit, videos, split, self.seed),
            )
        self._said.add(split)
        draw = numpy_generator(self.seed, "online evaluation", split)
        return {"rows": sorted(draw.choice(videos, limit, replace=False).tolist())}

    def _wants_knn(self, data: Any) -> bool:
        if self.knn != "auto":
            return self.knn
        if not callable(getattr(data, "manifest", None)):
            return False
        return all(_has_labels(data.manifest(split)) for split in {"val", self.gallery})

    def _check_labels(self, data: Any, split: str, *, rows: Sequence[int] | None = None) -> None:
        """Refuse videos without labels, where the data module tells which it has."""
        if not callable(getattr(data, "manifest", None)):
            return
        table = data.manifest(split)
        if not _has_labels(table, rows):
            number = len(table) if rows is None else len(rows)
            raise UserError(
                f"none of the {number} videos of {split} has a label, which k-NN during training "
                "needs; leave it out (callbacks.online.knn=false)"
            )


def _has_labels(table: Any, rows: Sequence[int] | None = None) -> bool:
    return any(table.label(row) >= 0 for row in (range(len(table)) if rows is None else rows))
