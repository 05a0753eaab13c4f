"""Heat maps of videos, by one or several networks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.evaluation.neighbour_tables import class_name
from vclr_lightning.functional.grad_cam import enlarge, shares
from vclr_lightning.functional.order import sample_shuffle
from vclr_lightning.stages.gradcam.chosen_videos import ChosenVideo
from vclr_lightning.stages.gradcam.explained import (
    SHUFFLED,
    explain,
)
from vclr_lightning.stages.gradcam.lookers import Looker, outcome_named, outcome_of_label
from vclr_lightning.stages.gradcam.spread_frames import Frames

_SAYS = {"class": "class", "order": "shuffled:", "similarity": ""}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is looked at in each video.

    Attributes:
        segments: S, frames (clips) of a tuple.
        passes: K, tuples of a video.
        explain: ``"predicted"`` or ``None``, ``"label"``, or an outcome's name or number.
        shuffled: which tuple of the order prediction is shuffled.
        seed: of shuffles.
    """

    segments: int
    passes: int
    explain: str | int | None = None
    shuffled: str = "neither"
    seed: int = 0

    def check(self, found: Sequence[Looker]) -> None:
        """Compare with what the networks can tell.

        Raises:
            UserError: they cannot tell this.
        """
        if self.shuffled not in SHUFFLED:
            raise UserError(f"shuffled={self.shuffled} must be {', '.join(SHUFFLED)}")
        for one in found:
            if one.kind == "similarity" and self.explain is not None:
                raise UserError(
                    f"explain={self.explain} chooses a class or an order; target=similarity has "
                    "one score alone: leave it out"
                )
            if self.explain not in (None, "predicted", "label"):
                outcome_named(str(self.explain), one)

    def check_labels(self, found: Sequence[Looker], videos: Sequence[ChosenVideo]) -> None:
        """Look the class of every video up.

        Raises:
            UserError: a video has none, or of a class that a network does not tell.
        """
        for video in videos:
            for one in found:
                outcome_of_label(video, one)

    def order(self, tuples: int, number: int) -> Tensor:
        """Return the order of each tuple's frames, ``(tuples, S)``."""
        rows = [np.arange(self.segments)] * tuples
        for place in range(tuples):
            if self.shuffled in (SHUFFLED[1 + place], "both"):
                rng = numpy_generator(self.seed, "gradcam", number, place)
                rows[place] = sample_shuffle(self.segments, rng)
        return torch.from_numpy(np.stack(rows))

    def passed(self, clips: Tensor, tuples: int, k: int) -> Tensor:
        """Return the tuples of pass k: its frames, and those half a segment later.

        Shape:
            ``(K, S, ...)`` to ``(tuples, S, ...)``
        """
        return torch.stack([clips[k], clips[(k + self.passes // 2) % self.passes]][:tuples])


@dataclass(frozen=True)
class View:
    """What one network sees in one video.

    Attributes:
        name: of the network.
        outcome: whose score is explained.
        score: as the network gives it, the mean of all passes.
        share: probability or cosine, likewise.
        words: both, for a reader.
        heat: ``(K, tuples, S, H, W)``, 1 where it is hottest in the whole video.
    """

    name: str
    outcome: str
    score: float
    share: float
    words: str
    heat: Tensor


@dataclass(frozen=True)
class Explained:
    """A video with the heat maps of all networks.

    Attributes:
        video: which.
        stem: of its files' names.
        tuples: 1 or 2.
        order: of each tuple's frames, ``(tuples, S)``.
        frames: what was looked at.
        views: of each network.
    """

    video: ChosenVideo
    stem: str
    tuples: int
    order: Tensor
    frames: Frames
    views: Sequence[View]


def explain_video(
    number: int, video: ChosenVideo, frames: Frames, found: Sequence[Looker], plan: Plan
) -> Explained:
    """Return the heat maps of a video.

    Args:
        number: of the video in this run.
        video: which.
        frames: of it.
        found: the networks.
        plan: what is looked at.

    Raises:
        UserError: the layer gives no maps, or takes no part in the score.
    """
    tuples = found[0].target.tuples
    order = plan.order(tuples, number)
    name = re.sub(r"[^\w.-]+", "_", video.name)[:80]
    views = [_view(video, frames, one, plan, order) for one in found]
    return Explained(video, f"{number:02}-{name}", tuples, order, frames, views)


def _view(video: ChosenVideo, frames: Frames, one: Looker, plan: Plan, order: Tensor) -> View:
    target, tuples = one.target, one.target.tuples
    order = order.to(one.device)
    passes = [plan.passed(frames.clips, tuples, k).to(one.device) for k in range(plan.passes)]
    with torch.no_grad():
        scores = torch.stack([target.scores(clips, order).float() for clips in passes]).mean(0)
    outcome = _chosen(scores, video, one, plan)
    size = frames.pictures.shape[-2:]
    heat = []
    for clips in passes:
        try:
            maps = explain(
                target, one.module, one.layer, clips=clips, order=order, outcome=outcome
            ).flatten(0, 1)
        except UserError as error:
            raise UserError(f"{one.weights}: {error}") from error
        if maps.ndim == 4:  # of clips: the frame in the middle is shown
            length = clips.shape[3]
            maps = enlarge(maps, (length, *size))[:, length // 2]
        else:
            maps = enlarge(maps, tuple(size))
        heat.append(maps.view(tuples, plan.segments, *size).cpu())
    name = "similarity" if one.kind == "similarity" else class_name(outcome, one.outcomes)
    share = float(target.shares(scores)[outcome])
    value = f"{share:.2f}" if one.kind == "similarity" else f"{100 * share:.0f}%"
    words = f"{_SAYS[one.kind]} {name} {value}".strip()
    return View(one.name, name, float(scores[outcome]), share, words, shares(torch.stack(heat)))


def _chosen(scores: Tensor, video: ChosenVideo, one: Looker, plan: Plan) -> int:
    """Return the number of the outcome to explain."""
    if one.kind == "similarity":
        return 0
    if plan.explain in (None, "predicted"):
        return int(scores.argmax())
    if plan.explain != "label":
        return outcome_named(str(plan.explain), one)
    return SHUFFLED.index(plan.shuffled) if one.kind == "order" else outcome_of_label(video, one)
