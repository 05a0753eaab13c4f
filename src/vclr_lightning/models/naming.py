"""The names that other libraries give to the weights of the same network."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.recognise import describe, recognise_backbone

_CONV = re.compile(r"(^|\.)conv(\d)\.")
_NORM = re.compile(r"(^|\.)bn(\d)\.")
_BLOCK = re.compile(r"(layer\d)\.(\d+)\.conv1\.conv\.")
# MMAction2's 2D ResNets, and before which of their blocks its TSM shifts: every block of those
# whose third layer has fewer than 23, every other block of deeper ones.
_EVERY = {"resnet18": 1, "resnet34": 1, "resnet50": 1, "resnet101": 2, "resnet152": 2}


def mmaction_names(
    tensors: Mapping[str, Tensor], *, tsm: bool = False, every_block: bool = False
) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet to those of MMAction2's recognisers.

    Every convolution and its norm layer stand in one module there, under ``backbone``.

    Args:
        tensors: of a ResNet of depth 18, 34, 50, 101 or 152.
        tsm: for ``ResNetTSM``, where convolutions that are shifted before stand in a ``net``.
        every_block: the network was trained with a shift before every block, as here.

    Raises:
        UserError: these are not the weights of such a ResNet, or MMAction2 would shift it at
            other places.

    Example:
        >>> from torchvision.models import resnet18
        >>> weights = {n: t for n, t in resnet18().state_dict().items() if not n.startswith("fc.")}
        >>> list(mmaction_names(weights))[0], list(mmaction_names(weights, tsm=True))[6]
        ('backbone.conv1.conv.weight', 'backbone.layer1.0.conv1.conv.net.weight')
    """
    spec = recognise_backbone(tensors)
    every = _EVERY.get(spec["name"]) if spec and not spec.get("small_stem", True) else None
    if spec is None or every is None:
        what = describe(spec) if spec else f"a network with weights such as {next(iter(tensors))}"
        raise UserError(f"MMAction2 has no names for {what}; it knows {', '.join(_EVERY)}")

    if every_block and every > 1:
        raise UserError(
            f"MMAction2's TSM shifts before every other block of a {spec['name']}, and this one "
            "was trained with a shift before each: its scores would be others there"
        )

    def wrapped(block: re.Match[str]) -> str:
        return block[0] + ("net." if int(block[2]) % every == 0 else "")

    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _CONV.sub(r"\1conv\2.conv.", name)
        new = _NORM.sub(r"\1conv\2.bn.", new)
        new = new.replace("downsample.0.", "downsample.conv.")
        new = new.replace("downsample.1.", "downsample.bn.")
        renamed[f"backbone.{_BLOCK.sub(wrapped, new) if tsm else new}"] = tensor
    return renamed
