"""A probe measured on all videos in turn, for sets whose test split has few groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.screen import track
from vclr_lightning.evaluation.features import VIDEO_COLUMNS, FeatureSet
from vclr_lightning.evaluation.probe_result import run_probe
from vclr_lightning.functional.folds import group_folds

if TYPE_CHECKING:
    from torch import Tensor

    from vclr_lightning.evaluation.cross_validation import Probe
    from vclr_lightning.evaluation.store import FeatureStore


def joined(*splits: FeatureSet | FeatureStore) -> FeatureSet:
    """Return the labelled videos of several splits, whose groups are numbered alike, as one set."""
    parts = [one.labelled() for one in splits]
    mean = torch.cat([one.mean for one in parts])
    columns = {name: torch.cat([getattr(one, name) for one in parts]) for name in VIDEO_COLUMNS}
    return FeatureSet(mean=mean, segments=mean[:, None], **columns, frames=(), rejected=())


def validated_by_group(
    probe: Probe, videos: FeatureSet, *, folds: int = 5, seed: int = 0, show: bool = True
) -> Tensor:
    """Return whether a probe classifies each video rightly that was fitted to the other folds.

    Folds keep groups whole. All videos are measured, so an interval over their groups is shorter
    than that of a small test split; but the probe sees other training videos than the published
    split has, so the two numbers are not to be mixed.

    Args:
        probe: what is fitted, once for each fold.
        videos: labelled.
        folds: their number; at most as many as there are groups.
        seed: of the folds.
        show: show a progress bar.

    Shape: returns ``(N,)`` bool

    Raises:
        UserError: there is one group, or one class, or the probe cannot be fitted.

    Example:
        >>> from vclr_lightning.evaluation.probes import KNNProbe
        >>> x, label = torch.eye(2).repeat(3, 1), torch.tensor([0, 1] * 3)
        >>> videos = FeatureSet(x, x[:, None], label, label, torch.arange(6) // 2, label)
        >>> validated_by_group(KNNProbe(k=1), videos, folds=3, show=False).tolist()
        [True, True, True, True, True, True]
    """
    groups = len(set(videos.group_id.tolist()))
    if groups < 2:
        raise UserError("cross-validation by group needs videos of two or more groups")
    fold = group_folds(videos.label, videos.group_id, folds=min(folds, groups), seed=seed)
    right = torch.zeros(len(videos), dtype=torch.bool)
    for number in track(range(min(folds, groups)), "cross-validation", show=show):
        held = fold == number
        found = run_probe(probe, videos.select(~held), videos.select(held), show=False)
        right[held] = found.hits["top1"]
    return right
