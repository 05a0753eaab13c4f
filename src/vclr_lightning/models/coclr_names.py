"""Names of the S3D in CoCLR's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

SPEC = {
    "_target_": "vclr_lightning.models.TorchvisionVideo",
    "name": "s3d",
    "bn_momentum": 0.1,
    "bn_eps": 1e-5,
}
"""Their network, which differs from torchvision's in BatchNorm alone."""

PREFIX = "encoder_q.0."
"""Prefix of the trained encoder in their checkpoints of pretraining."""

_LAYERS = {
    "Conv_1a": 0,
    "Conv_2b": 2,
    "Conv_2c": 3,
    "Mixed_3b": 5,
    "Mixed_3c": 6,
    "Mixed_4b": 8,
    "Mixed_4c": 9,
    "Mixed_4d": 10,
    "Mixed_4e": 11,
    "Mixed_4f": 12,
    "Mixed_5b": 14,
    "Mixed_5c": 15,
}
_NAME = re.compile(rf"(.*?)({'|'.join(_LAYERS)})((?:\.branch\d\.\d)?)\.(conv|bn)([12]?)\.(\w+)")
_TWICE = re.compile(r"block\d\.\d\.")


def torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of CoCLR's S3D to torchvision's names, and leave all others.

    Each of them is in CoCLR's files twice, the second time under a block, which is left out.

    Example:
        >>> import torch
        >>> weight = torch.zeros(64, 3, 1, 7, 7)
        >>> names = ("encoder_q.0.Conv_1a.conv1.weight", "encoder_q.0.block1.0.conv1.weight")
        >>> list(torchvision_names(dict.fromkeys(names, weight)))
        ['encoder_q.0.features.0.0.0.weight']
    """
    found = {name: _NAME.fullmatch(name) for name in tensors}
    prefixes = {match[1] for match in found.values() if match}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := found[name]:
            renamed[_renamed(match)] = tensor
        elif not any(name.startswith(p) and _TWICE.match(name.removeprefix(p)) for p in prefixes):
            renamed[name] = tensor
    return renamed


def _renamed(match: re.Match[str]) -> str:
    prefix, layer, branch, kind, half, what = match.groups()
    # A separable convolution is two; the first branch of a mixed layer is one without a sequence.
    branch = branch.replace("branch0.0", "branch0")
    part = f"{int(half) - 1}." if half else ""
    return f"{prefix}features.{_LAYERS[layer]}{branch}.{part}{int(kind == 'bn')}.{what}"
