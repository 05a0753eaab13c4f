"""Videos at a fixed number of positions with the labels of a boundary-matching network."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.lightning import LightningDataModule
from vclr_lightning.data.loading.epochs import EpochBatches
from vclr_lightning.data.loading.loader import EpochLoader
from vclr_lightning.data.localization.annotations import AnnotatedVideo, LeftOut
from vclr_lightning.data.localization.snippet_files import SnippetSet
from vclr_lightning.functional.bmn_losses import bmn_labels
from vclr_lightning.functional.boundary_matching import resample_snippets


@dataclass(frozen=True, eq=False)
class PositionSet(Dataset[dict[str, Any]]):
    """Annotated videos and their features at T positions.

    Attributes:
        videos: N of them.
        features: ``(N, T, F)`` float32.
    """

    videos: Sequence[AnnotatedVideo]
    features: Tensor

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the features ``(F, T)`` and labels of a video; the key is (epoch, row)."""
        row = key[1]
        labels = bmn_labels(self.videos[row].shares, self.features.shape[1])
        return {
            "features": self.features[row].T.contiguous(),
            "iou": labels.iou.astype(np.float32),
            "start": labels.start.astype(np.float32),
            "end": labels.end.astype(np.float32),
            "video_id": row,
            "valid": True,
        }

    @property
    def annotated(self) -> PositionSet:
        """The videos that have annotations."""
        rows = [row for row, video in enumerate(self.videos) if len(video.spans)]
        if len(rows) == len(self):
            return self
        return PositionSet([self.videos[row] for row in rows], self.features[rows])

    def path(self, row: int) -> Path:
        """Return the name of a video, for messages."""
        return Path(self.videos[row].name)

    def video_id(self, row: int) -> int:
        """Return the row itself."""
        return row

    def fingerprint(self) -> str:
        """Return a hash of features and spans."""
        digest = hashlib.sha256(repr(tuple(self.features.shape)).encode())
        for video, features in zip(self.videos, self.features, strict=True):
            digest.update(f"{video.name} {video.covered!r}".encode() + video.spans.tobytes())
            digest.update(features.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]


def place(
    videos: Iterable[AnnotatedVideo],
    snippets: SnippetSet,
    *,
    positions: int = 100,
    folder: str | Path | None = None,
    track: Callable[[Sequence[AnnotatedVideo]], Iterable[AnnotatedVideo]] = iter,
) -> tuple[PositionSet, list[LeftOut]]:
    """Resample the features of videos to ``positions`` positions along each.

    The result is memory-mapped from an unnamed file, so it may be larger than memory. Videos whose
    features are missing, cannot be read or are not finite are left out.

    Args:
        videos: wanted ones.
        snippets: their features.
        positions: T.
        folder: of the file; by default the system's for temporary files.
        track: shows progress.

    Raises:
        UserError: features have another dimension than those of the first video.
    """
    placed: list[AnnotatedVideo] = []
    left_out: list[LeftOut] = []
    wanted = [video for video in videos if video.name in snippets.read]
    features: Any = None
    for video in track(wanted):
        try:
            rows = snippets.read[video.name]().float()
        except UserError as error:
            left_out.append(LeftOut(video.name, "video left out", str(error)))
            continue
        if features is None:
            shape = (len(wanted), positions, rows.shape[1])
            with tempfile.TemporaryFile(dir=folder) as file:
                features = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
        if rows.shape[1] != features.shape[2]:
            raise UserError(
                f"the snippets of {video.name} have {rows.shape[1]} features, those of "
                f"{placed[0].name if placed else wanted[0].name} {features.shape[2]}; give "
                "features of one network"
            )
        if not bool(rows.isfinite().all()):
            reason = "its features are not finite"
            left_out.append(LeftOut(video.name, "video left out", reason))
            continue
        if not (snippets.placed and len(rows) == positions):
            rows = resample_snippets(rows, positions)
        features[len(placed)] = rows.numpy()
        placed.append(video)
    if features is None:
        return PositionSet([], torch.zeros(0, positions, 0)), left_out
    return PositionSet(placed, torch.from_numpy(features)[: len(placed)]), left_out


class LocalizationData(LightningDataModule):
    """Batches for training a localisation network, the same after any interruption.

    Args:
        train: the videos, all with annotations.
        batch_size: videos per optimizer step, over all devices and accumulated micro-batches.
        seed: of the order.

    Raises:
        UserError: in training, there are fewer videos than a batch needs, or the checkpoint
            belongs to other features.
    """

    def __init__(self, train: PositionSet, *, batch_size: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.train = train
        self.batch_size = batch_size
        self.seed = seed
        self._fingerprint = train.fingerprint()

    def train_dataloader(self) -> EpochLoader:
        """Return the loader of this rank."""
        trainer = self.trainer
        share: dict[str, Any] = {}
        if trainer is not None:
            share = {
                "world_size": trainer.world_size,
                "rank": trainer.global_rank,
                "accumulate": trainer.accumulate_grad_batches,
            }
        batches = EpochBatches(len(self.train), batch_size=self.batch_size, seed=self.seed, **share)
        return EpochLoader(self.train, batches)

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["fingerprint"] != self._fingerprint:
            raise UserError(
                "the checkpoint was trained on other features or annotations; give the same to "
                "continue, or another name=... for a new run"
            )
