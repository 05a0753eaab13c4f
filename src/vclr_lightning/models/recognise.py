"""Tell from the shapes of weights which network they are of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Size, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models.backbone import WrappedBackbone, bare, import_path
from vclr_lightning.models.timm import TimmBackbone
from vclr_lightning.models.tiny import NORMS, TinyBackbone
from vclr_lightning.models.torchvision import (
    RESNETS,
    TORCHVISION_S3D,
    VIDEO_NETWORKS,
    TorchvisionResNet,
    TorchvisionVideo,
)

if TYPE_CHECKING:
    from vclr_lightning.models.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    f"vclr_lightning.models.{kind.__name__}": kind
    for kind in (TorchvisionResNet, TorchvisionVideo, TimmBackbone, TinyBackbone)
}


_STAGES = 8  # of a TinyBackbone; a picture has no more halves
_LARGEST = 4096  # of the numbers in a spec: channels, pixels


def recognise_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the spec of the backbone of this package that has exactly these weights.

    Names and shapes tell; batch counters and values do not matter.

    Example:
        >>> recognise_backbone(TinyBackbone(width=8).state_dict())["width"]
        8
    """
    shapes = weight_shapes(tensors)
    for build in _candidates(shapes):
        with torch.device("meta"):
            candidate = build()
        if weight_shapes(candidate.state_dict()) == shapes:
            spec: dict[str, Any] = candidate.spec
            return spec
    return None


def spec_of(backbone: nn.Module) -> dict[str, Any]:
    """Return what built a network: its class as ``_target_``, and the arguments that it tells.

    Example:
        >>> spec_of(nn.Linear(2, 2))
        {'_target_': 'torch.nn.modules.linear.Linear'}
    """
    spec = dict(getattr(backbone, "spec", None) or {})
    if "pixel_mean" in vars(backbone):  # its own, not its class's
        spec["_pixels_"] = [list(values) for values in pixel_statistics(backbone)]
    if type(backbone) in (*BACKBONES.values(), WrappedBackbone):
        return spec
    # A spec that it inherits names another class.
    return {**spec, "_target_": import_path(backbone)}


def note_network(checkpoint: dict[str, Any], backbone: nn.Module, **facts: Any) -> None:
    """Note in a checkpoint what built its network, which names and shapes alone do not tell."""
    metadata = checkpoint.get("metadata") or {}
    checkpoint["metadata"] = {**metadata, "backbone": spec_of(backbone), **facts}


def known_spec(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what built the network of a file: as it says itself, otherwise by its weights.

    Empty where neither tells.
    """
    if (stored := checkpoint.spec) or checkpoint.prefix is None:
        return stored
    # An export names every network but those that no name was known of.
    exported = checkpoint.form == "vclr_lightning" and not checkpoint.prefix
    return {} if exported else recognise_backbone(checkpoint.backbone()) or {}


def completed(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a spec, or a node of a configuration, with what the first versions left unsaid.

    Example:
        >>> old = {"_target_": "vclr_lightning.models.TorchvisionVideo", "name": "s3d"}
        >>> completed(old)["bn_eps"]
        0.001
    """
    kind = BACKBONES.get(str(spec.get("_target_")))
    old = kind is TorchvisionVideo and spec.get("name") == "s3d"
    return {**TORCHVISION_S3D, **spec} if old else spec


def build_backbone(spec: Mapping[str, Any]) -> nn.Module:
    """Build a backbone of this package, one of :data:`BACKBONES`, from its spec.

    Raises:
        UserError: a number in it is larger than those of any network, or a value is out of range.

    Example:
        >>> build_backbone(TinyBackbone(width=8).spec).num_features
        64
    """
    return with_pixels(BACKBONES[spec["_target_"]](**arguments_of(spec)), spec)


def arguments_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in a spec.

    Raises:
        UserError: a number is larger than those of any network.
    """
    values = {k: v for k, v in completed(spec).items() if not k.startswith("_")}
    for key, value in values.items():
        if isinstance(value, int | float) and not abs(value) <= _LARGEST:
            raise UserError(f"{key}={value} is more than any network has")
    return values


def own_spec(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a spec that a file states if it is one of this package's networks; else ``None``.

    Only plain values count: nothing of a file is looked up.

    Example:
        >>> own_spec({"_target_": "os.system", "command": "true"})
        >>> tiny = {"_target_": "vclr_lightning.models.TinyBackbone"}
        >>> own_spec({**tiny, "_args_": [{"_target_": "os.system", "command": "true"}]}) == tiny
        True
        >>> own_spec({"_target_": "vclr_lightning.models.TinyBackbone", "width": "${a}"})
    """
    kept = {k: v for k, v in spec.items() if k in ("_target_", "_pixels_") or k[:1] != "_"}
    said = [value for key, value in kept.items() if key != "_pixels_"]
    plain = all(v is None or isinstance(v, bool | int | float | str) for v in said)
    if not plain or any("${" in str(v) for v in said) or spec.get("_target_") not in BACKBONES:
        return None
    return dict(completed(kept))


def with_pixels(backbone: nn.Module, spec: Mapping[str, Any]) -> nn.Module:
    """Let a network know how its pictures were normalised in training, where a spec says."""
    if pixels := spec.get("_pixels_"):
        backbone.pixel_mean, backbone.pixel_std = map(tuple, pixels)  # type: ignore[assignment]
    return backbone


def warn_of_another_network(checkpoint: Checkpoint, backbone: nn.Module) -> None:
    """Say that weights begin a network of another class than the user's own that they are of, or
    one that gets its pictures normalised in another way."""
    was = known_spec(checkpoint)
    pixels = was.get("_pixels_")
    now = [list(values) for values in pixel_statistics(backbone)]
    if pixels and pixels != now:
        logger.warning(
            "%s was trained on pictures normalised by mean and std %s, and this run takes %s; set "
            "module.mean and module.std to go on as it was",
            *(checkpoint.path, pixels, now),
        )
    backbone = bare(backbone)
    known = was.get("_target_", "") in ("", *BACKBONES)
    if not known and type(backbone).__name__ not in (_class_of(was), _class_of(was.get("net", {}))):
        logger.warning(
            "%s was trained as %s; its weights begin a %s, which need not compute the same. Give "
            "that network as backbone= to go on with it.",
            *(checkpoint.path, describe(was), type(backbone).__name__),
        )


def _class_of(spec: Any) -> str:
    return str(spec.get("_target_") if isinstance(spec, Mapping) else None).rpartition(".")[2]


def check_eps(checkpoint: Checkpoint, backbone: nn.Module) -> None:
    """Refuse weights in a network whose BatchNorm is not that which they were trained with.

    Raises:
        UserError: its eps, which shapes do not tell, is another.
    """
    if checkpoint.form == "other":  # of a program that is not known
        return
    was = completed(known_spec(checkpoint)).get("bn_eps")
    for layer in backbone.modules():
        if was is not None and isinstance(layer, _BatchNorm) and layer.eps != was:
            raise UserError(
                f"the weights in {checkpoint.path} are for BatchNorm of eps {was:g}, and this "
                f"network's has {layer.eps:g}; give backbone.bn_eps={was:g}"
            )


def describe(spec: Mapping[str, Any]) -> str:
    """Return a spec as one would type it.

    Example:
        >>> describe({"_target_": "vclr_lightning.models.TinyBackbone", "width": 8})
        'TinyBackbone(width=8)'
    """

    def said(value: Any) -> str:
        return (
            describe(value) if isinstance(value, Mapping) and "_target_" in value else repr(value)
        )

    arguments = ", ".join(f"{k}={said(v)}" for k, v in spec.items() if k[:1] != "_")
    return f"{str(spec['_target_']).removeprefix('vclr_lightning.models.')}({arguments:.200})"


def weight_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    """Return the shape of each weight by name, without the counters that old files lack."""
    return {n: t.shape for n, t in tensors.items() if not n.endswith("num_batches_tracked")}


def _candidates(shapes: Mapping[str, Size]) -> Iterator[Callable[[], Any]]:
    if len(shapes.get("conv1.weight", ())) > 1:
        small = shapes["conv1.weight"][-1] == 3
        for name in RESNETS:
            yield partial(TorchvisionResNet, name=name, small_stem=small)
    if len(shapes.get("stem.weight", ())) > 1:
        stages = len({n.split(".")[1] for n in shapes if n.startswith("blocks.")})
        width = shapes["stem.weight"][0]
        if 0 < stages <= _STAGES and width and width % 4 == 0:
            # BatchNorm alone keeps running statistics, so that at most one of these fits.
            for norm in NORMS:
                yield partial(TinyBackbone, width=width, stages=stages, norm=norm)
    if any(n.startswith(("stem.0.", "features.0.")) for n in shapes):
        for name in VIDEO_NETWORKS:
            old = {"bn_eps": TORCHVISION_S3D["bn_eps"]} if name == "s3d" else {}
            yield partial(TorchvisionVideo, name=name, **old)
