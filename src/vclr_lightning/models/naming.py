"""The names that other libraries give to the weights of the same network."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vclr_lightning.core.errors import UserError

_CONV = re.compile(r"(^|\.)conv(\d)\.")
_NORM = re.compile(r"(^|\.)bn(\d)\.")


def mmaction_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet to those of MMAction2's recognisers.

    Every convolution and its norm layer stand in one module there, under ``backbone``.

    Raises:
        UserError: these are not the weights of such a ResNet.

    Example:
        >>> import torch
        >>> one = torch.zeros(1)
        >>> names = ["conv1.weight", "layer1.0.bn2.bias", "layer2.0.downsample.1.weight"]
        >>> list(mmaction_names(dict.fromkeys(names, one)))  # doctest: +NORMALIZE_WHITESPACE
        ['backbone.conv1.conv.weight', 'backbone.layer1.0.conv2.bn.bias',
         'backbone.layer2.0.downsample.bn.weight']
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _CONV.sub(r"\1conv\2.conv.", name)
        new = _NORM.sub(r"\1conv\2.bn.", new)
        new = new.replace("downsample.0.", "downsample.conv.")
        new = new.replace("downsample.1.", "downsample.bn.")
        if new == name:
            raise UserError(
                f"MMAction2 has no name for {name}; only 2D ResNets can be handed to it"
            )
        renamed[f"backbone.{new}"] = tensor
    return renamed
