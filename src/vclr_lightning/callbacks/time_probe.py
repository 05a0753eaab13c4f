"""Does a network use time? Nearest neighbours of clips whose frames are out of order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vclr_lightning.callbacks.feature_source import Feature
from vclr_lightning.callbacks.online_probe import OnlineProbe
from vclr_lightning.core.distributed import gather_objects, rank, world_size
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningModule, Trainer
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.functional.knn import knn_accuracy
from vclr_lightning.functional.order import TIME_CHANGES, changed_in_time, sample_shuffle


class TimeProbe(OnlineProbe):
    """Logs how well clips are classified when their frames are shuffled, reversed or frozen.

    ``probe/time/normal/val_top1``, and likewise ``shuffled``, ``reversed`` and ``frozen`` (the
    middle frame over and over): how often the nearest other held-out clips, all normal, are of the
    clip's class, by cosine similarity and majority of ``k``. A network that loses nothing does not
    use the order. ``probe/time/CHANGE/similarity`` needs no labels: the mean cosine between the
    features of a clip and of the same clip changed; 1 of a network that cannot tell them apart.
    Shuffles are drawn from the seed and the video's id (or its position), the same at each
    evaluation. Clips of a video's own group, where the batch has a ``group_id``, are left out.

    Args:
        encode: clips to features ``(M, F)``; ``None``: the module's ``encode``, or the module.
        clips: function of the batch that returns its clips; ``None``: ``batch["frames"]``, or the
            first tensor of five or six dimensions.
        k: number of neighbours.
        seed: of the shuffles.
        options: ``labels``, ``held_out``, ``every_n_epochs`` and ``num_classes`` of
            :class:`~vclr_lightning.callbacks.online_probe.OnlineProbe`. Batches without labels are
            welcome.

    Shape: clips ``(B, C, T, H, W)``, or ``(B, m, C, T, H, W)``, whose features are averaged

    Raises:
        UserError: an argument is out of range; or clips have one frame, or there are none.

    Example:
        >>> from vclr_lightning.core.lightning import Trainer
        >>> probe = TimeProbe(held_out=lambda trainer: trainer.datamodule.val_dataloader())
        >>> trainer = Trainer(callbacks=[probe], accelerator="cpu", logger=False)
    """

    kind: ClassVar[str] = "time"

    def __init__(
        self,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        clips: Callable[[Any], Tensor] | None = None,
        k: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        changes: dict[str, Feature] = {
            change: partial(self._encoded, change) for change in TIME_CHANGES
        }
        super().__init__(features=changes, **options)
        if k < 1 or seed < 0:
            raise UserError(f"k={k} and seed={seed} of the time probe must be 1 or more, and 0")
        self.encode, self.clips, self.k, self.seed = encode, clips, k, seed
        self._parts: list[dict[str, Tensor]] = []
        self._seen = 0

    def reads(self, trainer: Trainer) -> bool:
        return False  # training steps

    def prepare(self) -> None:
        self._parts, self._seen = [], 0

    def count(self, features: dict[str, Tensor], batch: Any) -> None:
        rows = {change: x.mean(dim=1).float().cpu() for change, x in features.items()}
        number = len(rows["normal"])
        try:
            labels = self.labels_of(batch, number).cpu()
        except UserError:
            if self.labels is not None:
                raise
            labels = torch.full((number,), -1)
        own = torch.arange(self._seen, self._seen + number) * world_size() + rank()
        groups = batch.get("group_id", own) if isinstance(batch, Mapping) else own
        self._parts.append({**rows, "label": labels, "group": torch.as_tensor(groups).cpu()})
        self._seen += number

    def result(self) -> dict[str, float]:
        parts = [part for own in gather_objects(self._parts) for part in own]
        if not parts:
            return {}
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        normal, groups = rows["normal"], rows["group"]
        known = rows["label"] >= 0
        facts = {
            "query_labels": rows["label"][known],
            "gallery_labels": rows["label"][known],
            "query_groups": groups[known],
            "gallery_groups": groups[known],
        }
        found = {}
        for change in TIME_CHANGES:
            if change != "normal":
                likeness = cosine_similarity(rows[change], normal, dim=1).mean()
                found[self.named(change, "similarity")] = float(likeness)
            if len(torch.unique(groups[known])) > 1:
                top1 = knn_accuracy(rows[change][known], normal[known], k=self.k, **facts)
                found[self.named(change, "val_top1")] = top1
        return found

    def _encoded(self, change: Any, module: LightningModule, batch: Any) -> list[Tensor]:
        clips = self._clips_of(batch)
        single = clips[:, None] if clips.ndim == 5 else clips  # (B, m, C, T, H, W)
        frames = single.shape[3]
        ids = batch.get("video_id") if isinstance(batch, Mapping) else None
        keys = (
            [(rank(), self._seen + i) for i in range(len(clips))]
            if ids is None
            else [(int(i),) for i in ids]
        )
        orders = [sample_shuffle(frames, numpy_generator(self.seed, "time", *key)) for key in keys]
        order = torch.from_numpy(np.stack(orders)).to(clips.device)
        encode: Any = self.encode or getattr(module, "encode", module)
        return [encode(changed_in_time(some, change, order=order)) for some in single.unbind(dim=1)]

    def _clips_of(self, batch: Any) -> Tensor:
        if self.clips is not None:
            found: Any = self.clips(batch)
        elif isinstance(batch, Mapping) and "frames" in batch:
            found = batch["frames"]
        else:
            parts = batch.values() if isinstance(batch, Mapping) else batch
            parts = [batch] if isinstance(batch, Tensor) else parts
            found = next((x for x in parts if isinstance(x, Tensor) and x.ndim in (5, 6)), None)
        if not isinstance(found, Tensor) or found.ndim not in (5, 6):
            raise UserError(
                f"the time probe finds no clips (B, C, T, H, W) in a batch, a "
                f"{type(batch).__name__}; give a function of the batch (clips=)"
            )
        if found.shape[-3] < 2:
            raise UserError(
                "the time probe needs clips of two frames or more, and these have one; set "
                "frames_per_clip, or leave it out"
            )
        return found
