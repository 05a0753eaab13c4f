"""Match the weights in a file with a network, by name and shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.checkpoints import Checkpoint
from vclr_lightning.models.network_spec import (
    describe_spec,
    known_spec,
    upgrade_spec,
    weight_shapes,
)
from vclr_lightning.models.trusted_networks import trusted_spec

_SIZE = (
    "; give backbone.image_size as in its training: positions are interpolated where the pictures "
    "have another size"
)


def find_backbone(checkpoint: Checkpoint, backbone: nn.Module) -> dict[str, str]:
    """Return the file's name of each of the backbone's tensors that the file has.

    Raises:
        UserError: none fits, a shape or BatchNorm's eps differs, or a child of the backbone would
            be loaded only in part.
    """
    target = backbone.state_dict()
    prefix = checkpoint.prefix if checkpoint.prefix is not None else _prefix(checkpoint, target)
    weights = weight_shapes(target)
    if not any(prefix + name in checkpoint.tensors for name in weights):
        prefix += "net."  # of wrapped networks in the first versions
    found = {name: prefix + name for name in target if prefix + name in checkpoint.tensors}
    if not found.keys() & weights.keys():
        raise UserError(
            f"{checkpoint.path} holds no weights for {type(backbone).__name__}: it has names like "
            f"{next(iter(checkpoint.tensors))}, not {next(iter(target))}{_fitting(checkpoint)}"
        )
    for name, source in found.items():
        if problem := shape_problem(checkpoint, source, target[name]):
            hint = _SIZE if name.endswith("pos_embed") else ""
            raise UserError(problem + (_fitting(checkpoint) or hint))
    _check_eps(checkpoint, backbone)
    begun = {name.partition(".")[0] for name in found}
    if not any(name.endswith("running_mean") for name in checkpoint.tensors):
        # Of a network whose BatchNorm had none; this one's start afresh.
        weights = {name: shape for name, shape in weights.items() if ".running_" not in name}
    for name in weights:
        if name not in found and name.partition(".")[0] in begun:
            raise UserError(
                f"{checkpoint.path} has no {prefix}{name}, so it holds another network than this "
                f"{type(backbone).__name__}{_fitting(checkpoint)}"
            )
    return found


def _prefix(checkpoint: Checkpoint, target: Mapping[str, Tensor]) -> str:
    """Return the only prefix under which the file has most names of the backbone."""
    first = next(iter(target))
    prefixes = [n.removesuffix(first) for n in checkpoint.tensors if n.endswith(first)]
    counts = {
        p: sum(p + n in checkpoint.tensors for n in target)
        for p in prefixes
        if not p or p.endswith(".")  # not "layer1.0.", of "layer1.0.conv1.weight"
    }
    best = [p for p, count in counts.items() if count == max(counts.values())]
    if len(best) > 1:
        raise UserError(
            f"{checkpoint.path} holds {len(best)} sets of weights that fit this backbone, under "
            f"{', '.join(repr(p) for p in best)}; choose one by prefix"
        )
    return best[0] if best else ""


def shape_problem(checkpoint: Checkpoint, source: str, target: Tensor) -> str:
    """Return what differs between the shape in the file and the network's; empty if nothing."""
    shape = checkpoint.tensors[source].shape
    if shape == target.shape:
        return ""
    return (
        f"{source} of {checkpoint.path} has shape {tuple(shape)}, but this network's has "
        f"{tuple(target.shape)}"
    )


def _check_eps(checkpoint: Checkpoint, backbone: nn.Module) -> None:
    """Refuse weights trained with another eps of BatchNorm, which no shape reveals."""
    if checkpoint.form == "other":  # of an unknown program
        return
    eps = upgrade_spec(known_spec(checkpoint)).get("bn_eps")
    for layer in backbone.modules():
        if eps is not None and isinstance(layer, _BatchNorm) and layer.eps != eps:
            raise UserError(
                f"the weights in {checkpoint.path} are for BatchNorm of eps {eps:g}, and this "
                f"network's has {layer.eps:g}; give backbone.bn_eps={eps:g}"
            )


def _fitting(checkpoint: Checkpoint) -> str:
    spec = known_spec(checkpoint)
    if not spec:
        return ""
    taken = ", which backbone=as_init takes" if trusted_spec(spec) else ""
    return f"; the file fits {describe_spec(spec)}{taken}"
