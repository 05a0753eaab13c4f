"""Read the weights that other programs, and this one, write, and say which is which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vclr_lightning.core.arrays import is_safetensors, read_safetensors
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import parse_json, plain_values
from vclr_lightning.core.saved import load_torch

MARK = "vclr_lightning"
"""Of what this package says in a file of weights that it wrote."""

MOCO_PREFIX = "module.encoder_q."
QUERY_PREFIX = "query_encoder."
# Names of the released code's heads, and of the objectives that they serve here.
RELEASED_HEADS = {
    "inter": "fc_inter.",
    "intra": "fc_intra.",
    "video": "fc_tsn.",
    "order": "fc_order.",
}
RELEASED_CLASSIFIER = "fc_order_classifier."
CLASSIFIERS = ("fc.", "classifier.")  # of torchvision's networks
_STATE_DICTS = ("state_dict", "model", "model_state_dict", "backbone")
_SIDES = 2  # mean and spread of pixels
_NESTED = 4  # of these in one another


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file, and where in it the backbone and the heads stand.

    Attributes:
        path: the file.
        form: whose it is: ``"vclr_lightning"`` (a checkpoint or an export), ``"moco"``,
            ``"released"`` (the authors' VCLR code), ``"torchvision"`` or ``"other"``.
        tensors: everything in it, by name.
        prefix: what stands before the backbone's own names; ``None`` where that is not known.
        heads: prefix of the head that each objective starts from; ``"*"`` is for all objectives.
        classifiers: prefix of the linear classifier of an objective.
        metadata: facts about the file: package version, method, step, ...
    """

    path: Path
    form: str
    tensors: Mapping[str, Tensor]
    prefix: str | None
    heads: Mapping[str, str] = field(default_factory=dict)
    classifiers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose name starts with ``prefix``, without it."""
        return {n.removeprefix(prefix): t for n, t in self.tensors.items() if n.startswith(prefix)}

    @property
    def spec(self) -> dict[str, Any]:
        """How the file says that its network is built; empty where it does not.

        Raises:
            UserError: it says so in another form.
        """
        text = self.metadata.get("backbone", "{}")
        content = parse_json(text, f"the description of the network in {self.path}")
        spec = plain_values(content, self.path) if isinstance(content, dict) else {}
        pixels = spec.get("_pixels_") or ((0.0,), (1.0,))
        numbers = isinstance(pixels, list | tuple) and all(
            isinstance(side, list | tuple) and all(isinstance(v, int | float) for v in side)
            for side in pixels
        )
        named = not spec or isinstance(spec.get("_target_"), str)
        if not isinstance(content, dict) or not named or not numbers or len(pixels) != _SIDES:
            raise UserError(f"{self.path} describes its network in another form: {text[:99]}")
        return spec

    def backbone(self) -> dict[str, Tensor]:
        """Return the backbone's tensors under its own names, without heads and classifiers.

        Raises:
            UserError: it is not known where in the file the backbone stands.
        """
        if self.prefix is None:
            raise UserError(
                f"it is not known where the backbone stands in {self.path}, whose names are like "
                f"{next(iter(self.tensors))}; give the prefix of its names"
            )
        others = (*self.heads.values(), *self.classifiers.values())
        if self.form in ("torchvision", "other"):
            others += tuple(self.prefix + name for name in CLASSIFIERS)
        return {
            name.removeprefix(self.prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(self.prefix) and not name.startswith(others)
        }


def read_checkpoint(path: str | Path, *, prefix: str | None = None) -> Checkpoint:
    """Read the weights in a file onto the CPU and recognise their form. Runs no code of the file.

    Recognised are this package's checkpoints and safetensors exports, MoCo v2 checkpoints, the
    authors' released VCLR checkpoints and weights files of torchvision; in others, ``prefix``
    says what stands before the names of the backbone.

    Raises:
        UserError: the file is missing, damaged, of another program, holds code or objects besides
            plain values, or holds no weights.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no weights file at {path}; check the path")
    if is_safetensors(path):
        tensors, metadata = read_safetensors(path)
    else:
        content = load_torch(path)
        tensors, metadata = _find_tensors(content), _facts(content, path)
        if not tensors:
            raise UserError(f"{path} holds no weights: no state dict is found in it")
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    if prefix is not None:
        if not any(name.startswith(prefix) for name in tensors):
            raise UserError(f"no name in {path} starts with prefix={prefix!r}: {_some(tensors)}")
        return Checkpoint(path, "other", tensors, prefix, metadata=metadata)
    return _recognise(path, tensors, metadata)


def _recognise(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Checkpoint:
    if MARK in metadata:
        return Checkpoint(path, "vclr_lightning", tensors, "", metadata=metadata)
    if any(name.startswith(QUERY_PREFIX) for name in tensors):
        objectives = (name for name in tensors if name.startswith("objectives."))
        parts = [name.split(".") for name in objectives if name.count(".") > 1]
        return Checkpoint(
            path,
            "vclr_lightning",
            tensors,
            QUERY_PREFIX,
            heads={
                n: f"objectives.{n}.query_head." for _, n, part, *_ in parts if part == "query_head"
            },
            classifiers={
                n: f"objectives.{n}.classifier." for _, n, part, *_ in parts if part == "classifier"
            },
            metadata=metadata,
        )
    if any(name.startswith(MOCO_PREFIX) for name in tensors):
        return Checkpoint(path, "moco", tensors, MOCO_PREFIX, heads={"*": f"{MOCO_PREFIX}fc."})
    for outer in ("module.", ""):
        if any(name.startswith(outer + RELEASED_HEADS["inter"]) for name in tensors):
            heads = {name: outer + head for name, head in RELEASED_HEADS.items()}
            order = {"order": outer + RELEASED_CLASSIFIER}
            return Checkpoint(path, "released", tensors, outer, heads=heads, classifiers=order)
    if {"conv1.weight", "stem.0.weight", "features.0.0.0.weight"} & set(tensors):
        return Checkpoint(path, "torchvision", tensors, "")
    return Checkpoint(path, "other", tensors, None, metadata=metadata)


def _find_tensors(content: Any) -> dict[str, Tensor]:
    """Return the state dict itself, or the one under its customary keys."""
    left = [content]
    for _ in range(_NESTED):
        level = [value for value in left if isinstance(value, Mapping)]
        for value in level:
            found = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if found:
                return found
        left = [value.get(key) for value in level for key in _STATE_DICTS]
    return {}


def _facts(content: Any, path: Path) -> dict[str, str]:
    """Return what a checkpoint says about itself, as text."""
    if not isinstance(content, Mapping):
        return {}
    beside = getattr(content, "_metadata", None)
    said = beside.get(MARK) if isinstance(beside, Mapping) else None
    if isinstance(said, Mapping):  # a state dict of `vclr convert`
        return {str(key): str(value) for key, value in plain_values(said, path).items()}
    keys = ("epoch", "global_step", "arch")
    facts = {key: str(content[key])[:99] for key in keys if isinstance(content.get(key), int | str)}
    metadata = content.get("metadata")
    if isinstance(metadata, Mapping):
        known = plain_values(metadata, path)
        if isinstance(spec := _spec(known), Mapping):
            facts["backbone"] = json.dumps(spec)
        if head := finetuned_options(known).get("head"):
            facts["head"] = str(head)
    return facts


def finetuned_options(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how a finetuned classifier was built; empty where a checkpoint is of none."""
    config = metadata.get("config")
    module = config.get("module") if isinstance(config, Mapping) else None
    options = metadata.get("finetuned") or module
    return options if isinstance(options, Mapping) else {}


def _spec(metadata: Mapping[str, Any]) -> Any:
    """Return what built the network: its configuration, where that names a class of the user's."""
    config, spec = metadata.get("config"), metadata.get("backbone")
    node = config.get("backbone") if isinstance(config, Mapping) else None
    if not isinstance(node, Mapping) or "_target_" not in node:
        return spec
    package, _, name = str(node["_target_"]).rpartition(".")
    if package.startswith("vclr_lightning") and name != "WrappedBackbone":
        return spec
    return {**node, "_pixels_": spec.get("_pixels_") if isinstance(spec, Mapping) else None}


def _some(tensors: Mapping[str, Tensor]) -> str:
    names = list(tensors)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
