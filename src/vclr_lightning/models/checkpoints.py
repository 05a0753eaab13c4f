"""Read weights files of this package and of other programs, and recognise their layout."""

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
from vclr_lightning.models import coclr_names
from vclr_lightning.models.foreign_names import LAYOUTS, from_mmaction

MARK = "vclr_lightning"
"""Key of this package's metadata in the weights files that it writes."""

QUERY_PREFIX = "query_encoder."
_CLASSIFIERS = ("fc.", "classifier.")  # of torchvision's networks
_TORCHVISION = {  # a name in the files of its ResNets, video networks, Swin and MViT
    "conv1.weight",
    "stem.0.weight",
    "features.0.0.0.weight",
    "features.0.0.norm1.weight",
    "pos_encoding.class_token",
}
_STATE_DICTS = ("state_dict", "model", "model_state_dict", "backbone")
_NESTED = 4  # levels of these keys


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a weights file, and where in it the backbone and the heads are.

    Attributes:
        path: the file.
        form: its layout: ``"vclr_lightning"`` (a checkpoint or an export), ``"moco"``,
            ``"released"`` (the authors' VCLR code), ``"mmaction"``, ``"torchvision"`` or
            ``"other"``.
        tensors: all tensors, by name.
        prefix: prefix of the backbone's names; ``None`` if unknown.
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
        """The network spec in the file's metadata; empty if there is none.

        Raises:
            UserError: it is malformed.
        """
        text = self.metadata.get("backbone", "{}")
        content = parse_json(text, f"the description of the network in {self.path}")
        spec = plain_values(content, self.path) if isinstance(content, dict) else {}
        pixels = spec.get("_pixels_") or ((0.0,), (1.0,))  # mean and standard deviation
        sides = pixels if isinstance(pixels, list | tuple) else ()
        valid_pixels = len(sides) == 2 and all(
            isinstance(side, list | tuple) and all(isinstance(v, int | float) for v in side)
            for side in sides
        )
        named = not spec or isinstance(spec.get("_target_"), str)
        if not isinstance(content, dict) or not named or not valid_pixels:
            raise UserError(f"{self.path} describes its network in another form: {text[:99]}")
        return spec

    def backbone(self) -> dict[str, Tensor]:
        """Return the backbone's tensors under its own names, without heads and classifiers.

        Raises:
            UserError: the prefix of the backbone is unknown.
        """
        if self.prefix is None:
            raise UserError(
                f"{self.path} has an unknown layout, with names like {next(iter(self.tensors))}; "
                "give the prefix of the backbone's names"
            )
        others = (*self.heads.values(), *self.classifiers.values())
        if self.form in ("torchvision", "other"):
            others += tuple(self.prefix + name for name in _CLASSIFIERS)
        if self.form == "torchvision":
            others += ("head.",)  # of its transformers
        return {
            name.removeprefix(self.prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(self.prefix) and not name.startswith(others)
        }


def read_checkpoint(path: str | Path, *, prefix: str | None = None) -> Checkpoint:
    """Read a weights file onto the CPU and recognise its layout. Executes no code of the file.

    Recognised are this package's checkpoints and safetensors exports, MoCo v2 checkpoints, the
    authors' released VCLR checkpoints, TSN and TSM of MMAction2 and weights files of torchvision;
    for others, ``prefix`` is the prefix of the backbone's names.

    Raises:
        UserError: the file is missing, damaged, of another program, contains code or objects other
            than plain values, or contains no weights.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no weights file at {path}; check the path")
    if is_safetensors(path):
        tensors, metadata = read_safetensors(path)
    else:
        content = load_torch(path)
        tensors, metadata = _find_tensors(content), _find_metadata(content, path)
        if not tensors:
            raise UserError(f"{path} holds no weights: no state dict is found in it")
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    renamed = coclr_names.torchvision_names(tensors)
    if renamed.keys() != tensors.keys():
        tensors, metadata = renamed, {**metadata, "backbone": json.dumps(coclr_names.SPEC)}
    if prefix is not None:
        if not any(name.startswith(prefix) for name in tensors):
            names = ", ".join(list(tensors)[:3])
            more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
            raise UserError(f"no name in {path} starts with prefix={prefix!r}: {names}{more}")
        return Checkpoint(path, "other", tensors, prefix, metadata=metadata)
    return recognise(path, tensors, metadata)


def recognise(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """Recognise the layout of the tensors of a file by their names."""

    def present(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in tensors)

    if MARK in metadata:
        return Checkpoint(path, "vclr_lightning", tensors, "", metadata=metadata)
    if present(QUERY_PREFIX):
        parts = [name.split(".") for name in tensors if name.startswith("objectives.")]
        heads, classifiers = (
            {p[1]: f"objectives.{p[1]}.{part}." for p in parts if p[2:3] == [part]}
            for part in ("query_head", "classifier")
        )
        return Checkpoint(
            path, "vclr_lightning", tensors, QUERY_PREFIX, heads, classifiers, metadata
        )
    moco, released = LAYOUTS["moco"], LAYOUTS["released"]
    if present(moco.prefix):
        return Checkpoint(path, "moco", tensors, moco.prefix, heads=moco.heads)
    for outer in (released.prefix, ""):
        heads, order = (
            {name: outer + part.removeprefix(released.prefix) for name, part in parts.items()}
            for parts in (released.heads, released.classifiers)
        )
        if present(heads["inter"]):
            return Checkpoint(path, "released", tensors, outer, heads=heads, classifiers=order)
    if found := from_mmaction(tensors):
        renamed, prefix, every = found
        shifts = {"shift_every": str(every)} if every else {}
        classifier = LAYOUTS["mmaction"].classifiers
        return Checkpoint(
            path, "mmaction", renamed, prefix, classifiers=classifier, metadata=shifts
        )
    if present(f"{coclr_names.PREFIX}features."):
        return Checkpoint(path, "other", tensors, coclr_names.PREFIX, metadata=metadata)
    if _TORCHVISION & set(tensors):
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


def _find_metadata(content: Any, path: Path) -> dict[str, str]:
    """Return the metadata of a checkpoint, as text."""
    if not isinstance(content, Mapping):
        return {}
    layers = getattr(content, "_metadata", None)
    own = layers.get(MARK) if isinstance(layers, Mapping) else None
    if isinstance(own, Mapping):  # a state dict of `vclr convert`
        return {str(key): str(value) for key, value in plain_values(own, path).items()}
    keys = ("epoch", "global_step", "arch")
    facts = {key: str(content[key])[:99] for key in keys if isinstance(content.get(key), int | str)}
    metadata = content.get("metadata")
    if isinstance(metadata, Mapping):
        known = plain_values(metadata, path)
        if isinstance(spec := _recorded_spec(known), Mapping):
            facts["backbone"] = json.dumps(spec)
        options = finetuned_options(known)
        if head := options.get("head"):
            facts["head"] = str(head)
            if head == "tsm" and options.get("shift_divisions", 8) != 8:
                facts["shift_divisions"] = str(options["shift_divisions"])
    return facts


def finetuned_options(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how a finetuned classifier was built; empty if the checkpoint is not of one."""
    config = metadata.get("config")
    module = config.get("module") if isinstance(config, Mapping) else None
    options = metadata.get("finetuned") or module
    return options if isinstance(options, Mapping) else {}


def _recorded_spec(metadata: Mapping[str, Any]) -> Any:
    """Return the recorded spec; of earlier versions, the node of the configuration if it has more.

    They recorded the class alone of a network that is none of this package's.
    """
    config, spec = metadata.get("config"), metadata.get("backbone")
    node = config.get("backbone") if isinstance(config, Mapping) else None
    if not isinstance(node, Mapping) or "_target_" not in node:
        return spec
    package, _, name = str(node["_target_"]).rpartition(".")
    own = package.startswith("vclr_lightning") and name != "WrappedBackbone"
    if own or not isinstance(spec, Mapping) or "_class_" in spec:
        return node if spec is None and not own else spec
    inner = spec.get("net", spec)
    kind = inner.get("_target_") if isinstance(inner, Mapping) else None
    return {**node, "_pixels_": spec.get("_pixels_"), "_class_": kind}
