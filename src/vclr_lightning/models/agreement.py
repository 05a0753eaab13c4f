"""Whether two networks, or a network and a file of it, compute the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.network_spec import describe_spec

_TOLERANCE = 1e-4  # of the largest feature: what other orders of summation may change
_HEADS = ("fc", "classifier", "head")  # of torchvision's networks
_WHOLE = ("s3d", "mvit_v2_s")  # torchvision's own take no smaller clips than those of training


def library_features(
    library: str, ours: nn.Module, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str:
    """Compare the features of a network with those of torchvision's or timm's own.

    Args:
        library: ``"torchvision"`` or ``"timm"``.
        ours: the network, in evaluation mode.
        spec: how it was built.
        tensors: weights, by the library's names.

    Raises:
        UserError: the library has no such network, or it computes other features.
    """
    name = _name(spec, tag=library == "timm")
    build = {"torchvision": torchvision_network, "timm": timm_network}[library]
    theirs = build(spec, tensors)
    whole = {"size": 224, "frames": 16} if library == "torchvision" and name in _WHOLE else {}
    pixels = probe_pixels(ours, **whole)
    return check_features(ours, theirs, what=f"{library}'s own {name}", pixels=pixels)


@torch.no_grad()
def check_features(
    ours: nn.Module,
    theirs: Callable[[Tensor], Tensor],
    *,
    what: str,
    pixels: Tensor | None = None,
) -> str:
    """Compare the features of a network with those of another for the same pixels.

    Args:
        ours: the network, in evaluation mode.
        theirs: takes the pixels, and returns features of the same shape.
        what: the other, for a reader.
        pixels: to compare them on; by default those of :func:`probe_pixels`.

    Returns:
        A sentence on how well they agree.

    Raises:
        UserError: they differ.

    Example:
        >>> from vclr_lightning.models import TinyBackbone
        >>> net = TinyBackbone(width=8).eval()
        >>> check_features(net, net, what="itself")
        'features of itself agree on pixels of (2, 3, 64, 64), to 0e+00 of the largest'
    """
    if pixels is None:
        pixels = probe_pixels(ours)
    own = ours(pixels)
    try:
        other = theirs(pixels)
    except (RuntimeError, ValueError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{what} does not take what this network takes: {said}") from error
    if other.shape != own.shape:
        raise UserError(
            f"{what} returns features of shape {tuple(other.shape)} where this network returns "
            f"{tuple(own.shape)}"
        )
    largest = float(own.abs().max())
    difference = float((other - own).abs().max()) / (largest or 1.0)
    if not difference <= _TOLERANCE:
        raise UserError(
            f"{what} computes other features than this network from the same weights: they differ "
            f"by {difference:.0e} of the largest"
        )
    return (
        f"features of {what} agree on pixels of {tuple(pixels.shape)}, to {difference:.0e} of "
        "the largest"
    )


def probe_pixels(network: nn.Module, *, size: int | None = None, frames: int = 8) -> Tensor:
    """Return two random pictures or clips that a network takes.

    Args:
        network: with ``clip_dims``, and ``image_size`` where it was built for one.
        size: height and width; by default that, or 64.
        frames: of a clip.
    """
    if size is None:
        size = int(getattr(network, "image_size", 64))
    clip = (frames,) if getattr(network, "clip_dims", 2) == 3 else ()
    return torch.rand(2, 3, *clip, size, size, generator=torch.Generator().manual_seed(0))


def torchvision_network(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return torchvision's own network with these weights, giving its features.

    Raises:
        UserError: torchvision has no such network, or other weights.
    """
    name = _name(spec)
    if name not in torchvision.models.list_models():
        raise UserError(f"torchvision has no network {name or describe_spec(spec)}")
    net = torchvision.models.get_model(name, weights=None)
    for head in filter(lambda head: hasattr(net, head), _HEADS):
        setattr(net, head, nn.Identity())
    return _loaded(net, tensors, "torchvision")


def timm_network(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return timm's own network with these weights, giving its features.

    Raises:
        UserError: timm is not installed, or has no such network, or other weights.
    """
    if find_spec("timm") is None:
        raise UserError("timm is not installed; run pip install 'vclr_lightning[timm]'")
    timm, name = import_module("timm"), _name(spec, tag=True)
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name or describe_spec(spec)}")
    options = {k: spec[k] for k in ("global_pool",) if spec.get(k)}
    if timm.get_pretrained_cfg(name).fixed_input_size and spec.get("image_size"):
        options["img_size"] = spec["image_size"]
    net = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return _loaded(net, tensors, "timm")


def _name(spec: Mapping[str, Any], *, tag: bool = False) -> str:
    """Return the name by which other libraries build a network."""
    kind = str(spec.get("_target_")).rpartition(".")[2]
    if kind == "TorchvisionMViT":
        return "mvit_v2_s"
    known = kind in ("TorchvisionResNet", "TorchvisionVideo", "TorchvisionSwin", "TimmBackbone")
    name = str(spec.get("name", "")) if known else ""
    return name if tag else name.partition(".")[0]


def _loaded(net: nn.Module, tensors: Mapping[str, Tensor], library: str) -> nn.Module:
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{library}'s network has other weights: {said}") from error
    return net.eval()
