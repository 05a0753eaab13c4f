"""The spec of a network: its class and arguments, as recorded in a file or recognised by shapes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Size, Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.constructor_calls import import_path, recorded_call
from vclr_lightning.models.pace_networks import C3D, PaceResNet
from vclr_lightning.models.resnet3d import ResNet2d3d, SlowFastPathway
from vclr_lightning.models.s3dg import S3DG
from vclr_lightning.models.timm import TimmBackbone
from vclr_lightning.models.tiny import NORMS, TinyBackbone
from vclr_lightning.models.torchvision import (
    RESNETS,
    TORCHVISION_S3D,
    VIDEO_NETWORKS,
    TorchvisionResNet,
    TorchvisionVideo,
    published_pixels,
)
from vclr_lightning.models.tsm import TSMResNet
from vclr_lightning.models.video_transformers import SWINS, TorchvisionMViT, TorchvisionSwin

if TYPE_CHECKING:
    from vclr_lightning.models.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    f"vclr_lightning.models.{kind.__name__}": kind
    for kind in (
        TorchvisionResNet,
        TorchvisionVideo,
        TimmBackbone,
        TinyBackbone,
        ResNet2d3d,
        SlowFastPathway,
        TSMResNet,
        TorchvisionSwin,
        TorchvisionMViT,
        C3D,
        PaceResNet,
        S3DG,
    )
}

NODE = "_node"
"""Attribute of a network with the node of the configuration that it was built from."""

_STAGES = 8  # of a TinyBackbone, at most
_LARGEST = 4096  # number in a spec: channels, pixels


def recognise_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the spec of this package's backbone with exactly these weights, by names and shapes.

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


def _candidates(shapes: Mapping[str, Size]) -> Iterator[Callable[[], Any]]:
    if len(shapes.get("conv1.weight", ())) > 1:
        small = shapes["conv1.weight"][-1] == 3
        for name in RESNETS:
            yield partial(TorchvisionResNet, name=name, small_stem=small)
    if len(shapes.get("stem.weight", ())) > 1:
        stages = len({n.split(".")[1] for n in shapes if n.startswith("blocks.")})
        width = shapes["stem.weight"][0]
        if 0 < stages <= _STAGES and width and width % 4 == 0:
            # Only BatchNorm has running statistics, so at most one of these fits.
            for norm in NORMS:
                yield partial(TinyBackbone, width=width, stages=stages, norm=norm)
    if any(n.startswith(("stem.0.", "features.0.")) for n in shapes):
        for name in VIDEO_NETWORKS:
            old = {"bn_eps": TORCHVISION_S3D["bn_eps"]} if name == "s3d" else {}
            yield partial(TorchvisionVideo, name=name, **old)
        for name in SWINS if "patch_embed.proj.weight" in shapes else ():
            yield partial(TorchvisionSwin, name=name)
    if "pos_encoding.class_token" in shapes:
        yield TorchvisionMViT


def weight_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    """Return the shape of each weight by name, without the batch counters that old files lack."""
    return {n: t.shape for n, t in tensors.items() if not n.endswith("num_batches_tracked")}


def spec_of(backbone: nn.Module) -> dict[str, Any]:
    """Return the spec of a network: its class as ``_target_``, and the arguments.

    Arguments are those of the node of a configuration that it was built from, or of the call where
    its class derives from :class:`~vclr_lightning.models.Backbone`, or a mapping ``spec`` of the
    network. Where they are not known, the spec says so.

    Example:
        >>> spec_of(nn.ReLU6())["_target_"]
        'torch.nn.modules.activation.ReLU6'
        >>> spec_of(nn.Linear(2, 2))["_arguments_"]
        'unknown'
    """
    if NODE in vars(backbone):
        spec, kind = dict(vars(backbone)[NODE]), import_path(unwrap(backbone))
        if kind != spec.get("net", spec)["_target_"]:  # of a function
            spec["_class_"] = kind
    else:
        spec = recorded_call(backbone)
    if "pixel_mean" in vars(backbone):  # its own, not its class's
        spec["_pixels_"] = [list(values) for values in pixel_statistics(backbone)]
    return spec


def record_network(checkpoint: dict[str, Any], backbone: nn.Module, **facts: Any) -> None:
    """Record in a checkpoint's metadata the spec of its network, and further facts."""
    metadata = checkpoint.get("metadata") or {}
    checkpoint["metadata"] = {**metadata, "backbone": spec_of(backbone), **facts}


def known_spec(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the spec that a file records, or {}.

    A file that records none, another program's, has the spec recognised from its weights.
    """
    if (stored := checkpoint.spec) or checkpoint.prefix is None:
        return stored
    # An export records every network.
    exported = checkpoint.form == "vclr_lightning" and not checkpoint.prefix
    found = {} if exported else recognise_backbone(checkpoint.backbone()) or {}
    if found and (every := checkpoint.metadata.get("shift_every")):
        options = {key: found[key] for key in ("name", "small_stem")}
        found = {"_target_": import_path(TSMResNet), **options, "every": int(every)}
    if checkpoint.form == "torchvision" and found.get("name") in VIDEO_NETWORKS:
        found["_pixels_"] = published_pixels(found["name"])
    return found


def say_recognised(checkpoint: Checkpoint, spec: Mapping[str, Any]) -> None:
    """Warn, once, that a network is built from what its weights look like."""
    if spec and not checkpoint.spec:
        _warn_once(checkpoint.path, describe_spec(spec))


@lru_cache
def _warn_once(path: Path, network: str) -> None:
    logger.warning(
        "%s does not say which network its weights are of; by their names and shapes it is taken "
        "for %s, and backbone= names another",
        *(path, network),
    )


def upgrade_spec(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add to a spec, or a node of a configuration, the defaults of the version that wrote it.

    Example:
        >>> old = {"_target_": "vclr_lightning.models.TorchvisionVideo", "name": "s3d"}
        >>> upgrade_spec(old)["bn_eps"]
        0.001
    """
    kind = BACKBONES.get(str(spec.get("_target_")))
    old = kind is TorchvisionVideo and spec.get("name") == "s3d"
    return {**TORCHVISION_S3D, **spec} if old else spec


def spec_arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in a spec.

    Raises:
        UserError: a number is larger than in any network.
    """
    values = {k: v for k, v in upgrade_spec(spec).items() if not k.startswith("_")}
    for key, value in values.items():
        if isinstance(value, int | float) and not abs(value) <= _LARGEST:
            raise UserError(f"{key}={value} is more than any network has")
    return values


def set_pixel_statistics(backbone: nn.Module, spec: Mapping[str, Any]) -> nn.Module:
    """Give a network the pixel mean and standard deviation of its training, if the spec has any."""
    if pixels := spec.get("_pixels_"):
        backbone.pixel_mean, backbone.pixel_std = map(tuple, pixels)  # type: ignore[assignment]
    return backbone


def describe_spec(spec: Mapping[str, Any]) -> str:
    """Return a spec as Python code.

    Example:
        >>> describe_spec({"_target_": "vclr_lightning.models.TinyBackbone", "width": 8})
        'TinyBackbone(width=8)'
    """

    def text(value: Any) -> str:
        nested = isinstance(value, Mapping) and "_target_" in value
        return describe_spec(value) if nested else repr(value)

    values = [f"{k}={text(v)}" for k, v in spec.items() if k[:1] != "_"]
    arguments = ", ".join([*values, "..."] if "_arguments_" in spec else values)
    return f"{str(spec['_target_']).removeprefix('vclr_lightning.models.')}({arguments:.200})"
