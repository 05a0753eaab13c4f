"""Networks whose attention is shown, and the outcomes that they tell apart."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.layers import find_layer, last_stage
from vclr_lightning.evaluation.neighbour_tables import class_name
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.stages.gradcam.chosen_videos import ChosenVideo
from vclr_lightning.stages.gradcam.explained import Target
from vclr_lightning.stages.gradcam.targets import build_target, targets_of


@dataclass(frozen=True)
class Looker:
    """One network and the layer of it that is shown.

    Attributes:
        name: for a reader.
        weights: the file.
        kind: of target.
        target: gives the scores.
        layer: name of the layer.
        module: the layer.
        device: where it computes.
    """

    name: str
    weights: str
    kind: str
    target: Target
    layer: str
    module: nn.Module
    device: torch.device

    @property
    def outcomes(self) -> Sequence[str]:
        """What each score is for."""
        return self.target.outcomes


def lookers(
    ckpt: str | Path,
    others: Mapping[str, str | Path] | Sequence[str | Path] | None = None,
    *,
    backbone: nn.Module | None = None,
    target: str | None = None,
    layer: str | None = None,
    device: torch.device | str = "cpu",
) -> list[Looker]:
    """Return the networks of some checkpoints, of one target.

    Args:
        ckpt: the first.
        others: beside it; names, or ``PARENT/STEM`` of each file.
        backbone: the network of all; ``None`` for the one that each file is of.
        target: see :func:`~vclr_lightning.stages.gradcam.explained.build_target`.
        layer: its name; ``None`` for each network's last convolutional stage.
        device: where they compute.

    Raises:
        UserError: a checkpoint cannot be read, or lacks the target or the layer.
    """
    if isinstance(others, str):
        others = [others]
    named = dict(others) if isinstance(others, Mapping) else {}
    files = [ckpt, *(named.values() if named else others or ())]
    names = [*_names(files)[:1], *named] if named else _names(files)
    if len(set(names)) < len(names):
        raise UserError(f"others has two networks of one name ({', '.join(names)}); name each")
    if target is None:
        untrained = any(str(file).lower() == "none" for file in files)
        all_classify = not untrained and all(
            "class" in targets_of(read_checkpoint(f)) for f in files
        )
        target = "class" if all_classify else "similarity"
    found = []
    for name, file in zip(names, files, strict=True):
        built = build_target(target, file, backbone, of=ckpt).to(device).eval()
        try:
            chosen = layer or last_stage(unwrap(built.network))
            module = find_layer(built.network, chosen)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        where = torch.device(device)
        found.append(Looker(name, str(file), target, built, chosen, module, where))
    return found


def _count(one: Looker) -> int:
    classifier = getattr(getattr(one.target, "module", one.target), "classifier", None)
    return int(classifier.out_features) if isinstance(classifier, nn.Linear) else 1


def outcome_named(name: str, one: Looker) -> int:
    if name in one.outcomes:
        return list(one.outcomes).index(name)
    if name.isdecimal() and int(name) < _count(one):
        return int(name)
    near = difflib.get_close_matches(name, one.outcomes, n=3)
    hint = f"near it are {', '.join(near)}" if near else f"it has {_some(one)}"
    what = "class" if one.kind == "class" else "outcome"
    raise UserError(f"{one.weights} has no {what} {name}; {hint}, predicted and label")


def _some(one: Looker) -> str:
    names = list(one.outcomes[:8]) or [f"0 to {_count(one) - 1}"]
    return ", ".join(names) + (" and more" if len(one.outcomes) > 8 else "")


def outcome_of_label(video: ChosenVideo, one: Looker) -> int:
    """Return the classifier's number of a video's class: by name, where both have names."""
    if video.label < 0:
        raise UserError(
            f"explain=label needs the class of {video.path}, which has none; give "
            "explain=predicted, or a class"
        )
    if video.classes and one.outcomes:
        name = class_name(video.label, video.classes)
        if name not in one.outcomes:
            raise UserError(
                f"{one.weights} does not predict class {name}, of which {video.path} is; it has "
                f"{_some(one)}; give explain=predicted, or a class"
            )
        return list(one.outcomes).index(name)
    if video.label >= _count(one):
        raise UserError(
            f"{one.weights} predicts {_count(one)} classes, and {video.path} is of class "
            f"{video.label}; give explain=predicted, or a class"
        )
    return video.label


def _names(files: Sequence[str | Path]) -> list[str]:
    """Return short names of files: folder and stem, the whole path where that is not enough."""
    short = [
        "untrained"
        if str(file).lower() == "none"
        else f"{Path(file).absolute().parent.name}/{Path(file).name.partition('.')[0]}"
        for file in files
    ]
    return [
        name if short.count(name) == 1 else str(file)
        for name, file in zip(short, files, strict=True)
    ]
