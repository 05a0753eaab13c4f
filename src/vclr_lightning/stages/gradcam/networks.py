"""The networks whose evidence is shown, and the outcomes that they predict."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.evaluation.layers import default_layer, find_layer
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.stages.gradcam.targets import Target, build_target, targets_of
from vclr_lightning.stages.gradcam.videos import ChosenVideo


@dataclass(frozen=True)
class Network:
    """A checkpoint's target and the layer whose maps are shown.

    Attributes:
        name: for a reader.
        weights: the file.
        target: gives the scores.
        layer: name of the layer.
        module: the layer.
    """

    name: str
    weights: str
    target: Target
    layer: str
    module: nn.Module

    def outcome(self, name: str) -> int:
        """Return the number of an outcome by its name or number.

        Raises:
            UserError: there is none.
        """
        known = self.target.outcomes
        if name in known:
            return list(known).index(name)
        if name.isdecimal() and int(name) < self.target.num_outcomes:
            return int(name)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"near it are {', '.join(near)}" if near else f"it has {self._some()}"
        what = "class" if self.target.kind == "class" else "outcome"
        raise UserError(f"{self.weights} has no {what} {name}; {hint}, predicted and label")

    def true_class(self, video: ChosenVideo) -> int:
        """Return the classifier's number of a video's class: by name, where both have names.

        Raises:
            UserError: the video has no class, or one that the classifier does not predict.
        """
        known = self.target.outcomes
        if video.label < 0:
            raise UserError(
                f"explain=label needs the class of {video.path}, which has none; give "
                "explain=predicted, or a class"
            )
        if video.classes and known:
            name = class_name(video.label, video.classes)
            if name not in known:
                raise UserError(
                    f"{self.weights} does not predict class {name}, of which {video.path} is; it "
                    f"has {self._some()}; give explain=predicted, or a class"
                )
            return list(known).index(name)
        if video.label >= self.target.num_outcomes:
            raise UserError(
                f"{self.weights} predicts {self.target.num_outcomes} classes, and {video.path} is "
                f"of class {video.label}; give explain=predicted, or a class"
            )
        return video.label

    def _some(self) -> str:
        known = self.target.outcomes
        names = list(known[:8]) or [f"0 to {self.target.num_outcomes - 1}"]
        return ", ".join(names) + (" and more" if len(known) > 8 else "")


def load_networks(
    ckpt: str | Path,
    others: Mapping[str, str | Path] | Sequence[str | Path] | None = None,
    *,
    backbone: nn.Module | None = None,
    target: str | None = None,
    layer: str | None = None,
    device: torch.device | str = "cpu",
) -> list[Network]:
    """Return the networks of some checkpoints, with one kind of target.

    Raises:
        UserError: a checkpoint cannot be read, or lacks the target or the layer.
    """
    if isinstance(others, str):
        others = [others]
    named = dict(others) if isinstance(others, Mapping) else {}
    files = [ckpt, *(named.values() if named else others or ())]
    short = ["untrained" if _is_none(file) else _short(file) for file in files]
    names = [
        name if short.count(name) == 1 else str(file)
        for name, file in zip(short, files, strict=True)
    ]
    names = [names[0], *named] if named else names
    if len(set(names)) < len(names):
        raise UserError(f"others has two networks of one name ({', '.join(names)}); name each")
    if target is None:
        all_classify = not any(map(_is_none, files)) and all(
            "class" in targets_of(read_checkpoint(file)) for file in files
        )
        target = "class" if all_classify else "similarity"
    found = []
    for name, file in zip(names, files, strict=True):
        built = build_target(target, file, backbone, of=ckpt).to(device).eval()
        try:
            chosen = layer or default_layer(unwrap(built.network))
            module = find_layer(built.network, chosen)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        found.append(Network(name, str(file), built, chosen, module))
    return found


def _is_none(file: str | Path) -> bool:
    return str(file).lower() == "none"


def _short(file: str | Path) -> str:
    """Folder and stem of a file."""
    return f"{Path(file).absolute().parent.name}/{Path(file).name.partition('.')[0]}"
