"""Pictures of what a network is given in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import CheckedCallback, LightningModule, Trainer
from vclr_lightning.results.pictures import picture_of
from vclr_lightning.results.visuals import Picture, PictureGroup


class ViewPictures(CheckedCallback):
    """Logs the views of a few videos, as augmented, in the first batch of every few epochs.

    A picture for each video, ``train/views``: a row for each view, with the middle frame of each of
    its clips. Where ``targets["VIEW_order"]`` says in which order an objective is shown the clips,
    they are numbered by it. Only loggers with a method ``log_image`` receive it (W&B, TensorBoard,
    MLflow); without one, nothing is computed. Works with any LightningModule.

    Args:
        videos: number of videos.
        every_n_epochs: epochs between two pictures; the first is of the first batch.
        size: height of a frame in pixels; larger ones are reduced.
        views: of a batch, by name, ``(B, n, C, T, H, W)``; ``None`` for ``batch["views"]``, without
            which nothing is logged. What is not uint8 is scaled to its own range.

    Raises:
        UserError: a number is below 1.

    Example:
        With the batch ``(two crops, label)`` of a module of another package::

            pictures = ViewPictures(views=lambda batch: {"crops": batch[0][:, :, :, None]})
            Trainer(callbacks=[pictures], logger=WandbLogger(project="mine"))
    """

    def __init__(
        self,
        *,
        videos: int = 4,
        every_n_epochs: int = 10,
        size: int = 112,
        views: Callable[[Any], Mapping[str, Tensor]] | None = None,
    ) -> None:
        for name, value in {
            "videos": videos,
            "every_n_epochs": every_n_epochs,
            "size": size,
        }.items():
            if value < 1:
                raise UserError(f"{name}={value} of the pictures of views must be 1 or more")
        self.videos, self.every_n_epochs, self.size = videos, every_n_epochs, size
        self.views = views

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        sinks = [one for one in trainer.loggers if callable(getattr(one, "log_image", None))]
        if not sinks or (self.views is None and not _has_views(batch)):
            return
        views = batch["views"] if self.views is None else self.views(batch)
        found = batch if isinstance(batch, Mapping) else {}
        number = min([self.videos, *map(len, views.values())])
        groups = [self._group(views, found, i) for i in range(number)]
        drawn = [(picture_of(group), group.text) for group in groups]
        if shown := [(image, text) for image, text in drawn if image is not None]:
            images, texts = map(list, zip(*shown, strict=True))
            for sink in sinks:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                sink.log_image(key="train/views", images=images, caption=texts, step=step)  # type: ignore[attr-defined]

    def _group(self, views: Mapping[str, Tensor], batch: Mapping[str, Any], i: int) -> PictureGroup:
        targets = batch.get("targets", {})
        rows, words = [], []
        if "video_id" in batch:
            words.append(f"video {int(batch['video_id'][i])}")
        for name, clips in views.items():
            order = targets[f"{name}_order"][i].tolist() if f"{name}_order" in targets else []
            frames = _pixels(clips[i].detach().select(-3, clips.shape[-3] // 2), self.size)
            badges = [str(order.index(p) + 1) if p in order else "" for p in range(len(frames))]
            pairs = zip(frames, badges, strict=True)
            rows.append((name, [Picture(frames=frame, badge=badge) for frame, badge in pairs]))
            if order:
                kind = "in order" if order == sorted(order) else "shuffled"
                words.append(f"{name} {kind}: {' '.join(str(place + 1) for place in order)}")
        return PictureGroup(rows=rows, text=", ".join(words))


def _has_views(batch: Any) -> bool:
    return isinstance(batch, Mapping) and isinstance(batch.get("views"), Mapping)


def _pixels(frames: Tensor, size: int) -> Tensor:
    """Frames ``(n, C, H, W)`` as uint8 ``(n, 3, h, w)`` with ``h`` at most ``size``."""
    frames = frames.cpu()
    height, width = frames.shape[-2:]
    if not len(frames):
        return frames
    pixels = frames.float()
    if frames.dtype != torch.uint8:
        low, high = pixels.amin(), pixels.amax()
        pixels = (pixels - low) / (high - low).clamp(min=1e-12) * 255
    if height > size:
        target = (size, max(1, round(width * size / height)))
        pixels = interpolate(pixels, target, mode="bilinear", antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
