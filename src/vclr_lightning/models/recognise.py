"""Tell from the shapes of weights which network they are of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Size, Tensor, nn

from vclr_lightning.models.timm import TimmBackbone
from vclr_lightning.models.tiny import NORMS, TinyBackbone
from vclr_lightning.models.torchvision import (
    RESNETS,
    VIDEO_NETWORKS,
    TorchvisionResNet,
    TorchvisionVideo,
)

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    f"vclr_lightning.models.{kind.__name__}": kind
    for kind in (TorchvisionResNet, TorchvisionVideo, TimmBackbone, TinyBackbone)
}


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


def build_backbone(spec: Mapping[str, Any]) -> nn.Module | None:
    """Build a backbone of this package from its spec; ``None`` if it is none of this package's.

    Example:
        >>> build_backbone(TinyBackbone(width=8).spec).num_features
        64
    """
    kind = BACKBONES.get(spec.get("_target_", ""))
    return kind(**{k: v for k, v in spec.items() if k[0] != "_"}) if kind else None


def describe(spec: Mapping[str, Any]) -> str:
    """Return a spec as one would type it.

    Example:
        >>> describe({"_target_": "vclr_lightning.models.TinyBackbone", "width": 8})
        'TinyBackbone(width=8)'
    """
    arguments = ", ".join(f"{k}={v!r}" for k, v in spec.items() if k != "_target_")
    return f"{spec['_target_'].rpartition('.')[2]}({arguments})"


def weight_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    """Return the shape of each weight by name, without the counters that old files lack."""
    return {n: t.shape for n, t in tensors.items() if not n.endswith("num_batches_tracked")}


def _candidates(shapes: Mapping[str, Size]) -> Iterator[Callable[[], Any]]:
    if "conv1.weight" in shapes:
        small = shapes["conv1.weight"][-1] == 3
        for name in RESNETS:
            yield partial(TorchvisionResNet, name=name, small_stem=small)
    if "stem.weight" in shapes:
        stages = len({n.split(".")[1] for n in shapes if n.startswith("blocks.")})
        width = shapes["stem.weight"][0]
        if stages and width % 4 == 0:
            # BatchNorm alone keeps running statistics, so that at most one of these fits.
            for norm in NORMS:
                yield partial(TinyBackbone, width=width, stages=stages, norm=norm)
    if any(n.startswith(("stem.0.", "features.0.")) for n in shapes):
        for name in VIDEO_NETWORKS:
            yield partial(TorchvisionVideo, name=name)
