"""Grad-CAM of a network's score for a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.evaluation.layers import layer_gradients
from vclr_lightning.functional.grad_cam import enlarge, grad_cam, shares
from vclr_lightning.functional.order import sample_shuffle
from vclr_lightning.stages.gradcam.networks import Network
from vclr_lightning.stages.gradcam.targets import SHUFFLED, Target
from vclr_lightning.stages.gradcam.videos import ChosenVideo

_PREFIX = {"class": "class ", "order": "shuffled: ", "similarity": ""}


@dataclass(frozen=True)
class HeatMap:
    """Where one network finds evidence in one video.

    Attributes:
        network: its name.
        outcome: whose score is explained.
        score: as the network gives it, the mean of all passes.
        probability: or cosine, likewise.
        summary: both, for a reader.
        heat: ``(K, tuples, S, H, W)``, 1 where it is highest in the whole video.
    """

    network: str
    outcome: str
    score: float
    probability: float
    summary: str
    heat: Tensor


def shuffled_orders(shuffled: str, *, tuples: int, segments: int, seed: int, number: int) -> Tensor:
    """Return the order of each tuple's frames in video ``number`` of a run, ``(tuples, S)``."""
    rows = [np.arange(segments)] * tuples
    for place in range(tuples):
        if shuffled in (SHUFFLED[1 + place], "both"):
            rng = numpy_generator(seed, "gradcam", number, place)
            rows[place] = sample_shuffle(segments, rng)
    return torch.from_numpy(np.stack(rows))


def heat_map(
    network: Network,
    video: ChosenVideo,
    clips: Tensor,
    *,
    order: Tensor,
    explain: str | int | None,
    shuffled: str,
    size: int,
    device: torch.device,
) -> HeatMap:
    """Return the heat maps of a network in all passes over a video.

    The second tuple of pass k are the frames half a segment later.

    Shape:
        ``clips``: ``(K, S, C, T, H, W)``; ``order``: ``(tuples, S)``

    Raises:
        UserError: the layer gives no maps, or takes no part in the score.
    """
    target, count = network.target, len(clips)
    order = order.to(device)
    passes = [
        torch.stack([clips[k], clips[(k + count // 2) % count]][: target.tuples]).to(device)
        for k in range(count)
    ]
    with torch.no_grad():
        scores = torch.stack([target.scores(one, order).float() for one in passes]).mean(0)
    if target.kind == "similarity":
        outcome = 0
    elif explain in (None, "predicted"):
        outcome = int(scores.argmax())
    elif explain != "label":
        outcome = network.outcome(str(explain))
    elif target.kind == "order":
        outcome = SHUFFLED.index(shuffled)
    else:
        outcome = network.true_class(video)
    heat = []
    for one in passes:
        try:
            maps = explain_score(
                target, network.module, network.layer, clips=one, order=order, outcome=outcome
            ).flatten(0, 1)
        except UserError as error:
            raise UserError(f"{network.weights}: {error}") from error
        if maps.ndim == 4:  # of clips: the frame in the middle is shown
            length = one.shape[3]
            maps = enlarge(maps, (length, size, size))[:, length // 2]
        else:
            maps = enlarge(maps, (size, size))
        heat.append(maps.view(target.tuples, -1, size, size).cpu())
    name = "similarity" if target.kind == "similarity" else class_name(outcome, target.outcomes)
    probability = float(target.probabilities(scores)[outcome])
    value = f"{probability:.2f}" if target.kind == "similarity" else f"{100 * probability:.0f}%"
    return HeatMap(
        network=network.name,
        outcome=name,
        score=float(scores[outcome]),
        probability=probability,
        summary=f"{_PREFIX[target.kind]}{name} {value}",
        heat=shares(torch.stack(heat)),
    )


def explain_score(
    target: Target, layer: nn.Module, name: str, *, clips: Tensor, order: Tensor, outcome: int
) -> Tensor:
    """Return the heat maps of an outcome's score, as large as the layer's output.

    Shape:
        ``clips``: ``(tuples, S, C, T, H, W)`` uint8; ``order``: ``(tuples, S)``;
        result ``(tuples, S, h, w)``, or ``(tuples, S, t, h, w)`` of a network of clips
    """
    watched = layer_gradients(layer, name, network=target.network)
    with torch.enable_grad(), watched as captured:
        heat = grad_cam(*captured(target.scores(clips, order)[outcome]))
    count = clips.shape[0] * clips.shape[1]
    if len(heat) != count:
        raise UserError(
            f"layer={name} returns maps of {len(heat)} pictures for {count}; take another layer"
        )
    return heat.view(*clips.shape[:2], *heat.shape[1:])
